"""Any damage to any file that data are read from: what was meant is read, or one line names the file."""

import gzip
import io
import os
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pyro_avae.data import load_dataset, omniglot
from pyro_avae.data.matlab import read_matrices
from pyro_avae.errors import InputError

FACES = 6


def examples(count):
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def damages(draw):
    """A change of bytes: cut off, changed, put in or taken out, anywhere; the place is a share of the length."""
    kind = draw(st.sampled_from(["cut", "change", "insert", "remove"]))
    place = draw(st.floats(0, 1, exclude_max=True))
    piece = draw(st.binary(min_size=1, max_size=12))

    def apply(content: bytes) -> bytes:
        at = int(place * len(content))
        rest = {"cut": b"", "insert": piece + content[at:], "remove": content[at + len(piece) :]}
        return content[:at] + rest.get(kind, piece + content[at + len(piece) :])

    return apply


def picture(size=(89, 109), mode="RGB", kind="png"):
    stream = io.BytesIO()
    shades = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(shades).convert(mode).save(stream, kind)
    return stream.getvalue()


def huge_png(width, height):
    """An image of one colour, whose few bytes announce any number of pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(2000)))]
    parts = [
        struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in [*chunks, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture
def folder(celeba, tmp_path, decoded):
    """A source of few faces, and the test data of another kind beside it."""
    return celeba.write_source(tmp_path / "root" / "celeba", FACES)


@pytest.fixture
def attempt(tmp_path, decoded):
    """Load; None where one line names the file. Only whole files of the cache are written, and no word is said."""

    def load(dataset, root, name):
        before = {path for path in tmp_path.rglob("*") if decoded not in path.parents}
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                data = load_dataset(dataset, root=root)
            except InputError as error:
                data = None
                assert len(str(error).splitlines()) == 1 and str(error).isprintable() and name in str(error), str(error)
        assert not said, said[0].message
        after = {path for path in tmp_path.rglob("*") if decoded not in path.parents}
        assert after - before <= {decoded, decoded.parent, decoded.parent.parent}
        assert not list(decoded.glob(".*")), "half of a file"
        return data

    return load


def assert_is_read_again(expected, attempt, dataset, root):
    """As before the damage: nothing wrong was kept."""
    again = attempt(dataset, root, "")
    assert again is not None and torch.equal(again.train.images, expected.train.images)


@pytest.mark.parametrize("packed", [False, True])
@examples(40)
@given(damage=damages(), kind=st.sampled_from(["jpeg", "png"]))
def test_a_damaged_face_is_read_or_refused(celeba, folder, attempt, packed, damage, kind):
    names = celeba.names(FACES)
    (folder / "img_align_celeba").mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (folder / "img_align_celeba" / name).write_bytes(celeba.jpeg(celeba.face(number)))
    if not packed:
        expected = attempt("celeba", folder, "")
    content = damage(picture(kind=kind))
    (folder / "img_align_celeba" / names[2]).write_bytes(content)
    if packed:
        celeba.zipped(folder, prefix="a/")
    found = attempt("celeba", folder, names[2])
    assert found is None or found.shape == (3, 64, 64)
    if not packed:
        (folder / "img_align_celeba" / names[2]).write_bytes(celeba.jpeg(celeba.face(2)))
        assert_is_read_again(expected, attempt, "celeba", folder)


def a_directory(path):
    path.mkdir()


def a_pipe(path):
    os.mkfifo(path)


def a_broken_link(path):
    path.symlink_to(path.parent / "nothing")


def holding(content):
    return lambda path: path.write_bytes(content)


#: What lies in an image's place, and what is made of it as a face and in a folder of one's own: whether it is read.
IN_PLACE = {
    "directory": (a_directory, False, False),
    "pipe": (a_pipe, False, False),
    "broken link": (a_broken_link, False, False),
    "nothing": (holding(b""), False, False),
    "text": (holding(b"no image\n" * 50), False, False),
    "png": (holding(picture()), True, True),
    "palette": (holding(picture(mode="P")), True, True),
    "cmyk": (holding(picture(mode="CMYK", kind="jpeg")), True, True),
    "16 bits": (holding(picture(mode="I;16")), False, False),
    "floats": (holding(picture(mode="F", kind="tiff")), False, False),
    "eps": (holding(picture(kind="eps")), False, False),
    "other size": (holding(picture(size=(80, 80))), False, False),
    "huge": (holding(huge_png(2**15, 2**15)), False, False),
    "below Pillow's bound": (holding(huge_png(9000, 9000)), False, False),
    "above it": (holding(huge_png(11000, 11000)), False, False),
}


@pytest.mark.parametrize("kind", IN_PLACE)
def test_what_lies_in_the_place_of_an_image(celeba, folder, attempt, tmp_path, kind):
    put, is_face, is_own = IN_PLACE[kind]
    own = tmp_path / "own"
    own.mkdir()
    for name in ("b.png", "c.png"):
        (own / name).write_bytes(picture())
    for path in (folder / "img_align_celeba/000003.jpg", own / "a.png"):
        path.unlink(missing_ok=True)
        put(path)
    if kind != "directory":  # a subfolder beside images is refused as such
        assert (attempt(f"folder:{own}", None, "a.png") is not None) == is_own
    assert (attempt("celeba", folder, "000003.jpg") is not None) == is_face


@examples(40)
@given(damage=damages(), kind=st.sampled_from(["jpeg", "png", "gif", "bmp", "tiff", "webp", "ppm"]))
def test_a_damaged_image_of_ones_own_is_read_or_refused(attempt, tmp_path, damage, kind):
    own = tmp_path / "own"
    own.mkdir(exist_ok=True)
    for number in range(2):
        (own / f"{number}.png").write_bytes(picture(size=(20, 15)))
    (own / "2.png").write_bytes(damage(picture(size=(20, 15), kind=kind)))
    found = attempt(f"folder:{own}", None, "own")
    assert found is None or found.shape == (3, 15, 20)


LINES = st.one_of(
    st.sampled_from(["", " ", "7", "9" * 5000, "000001.jpg", "../000001.jpg -1", "/etc/passwd 1", "a 1e0", "\ufeff1"]),
    st.text(max_size=30),
)


@examples(80)
@given(data=st.data(), file=st.integers(0, 2))
def test_any_lists_are_data_or_one_line(celeba, folder, attempt, data, file):
    """Bytes damaged, or lines dropped, doubled, moved, replaced; with a mark of the byte order; in another encoding."""
    celeba.write_lists(folder, FACES)
    expected = attempt("celeba", folder, "")
    path = folder / celeba.LISTS[file]
    content = path.read_bytes()
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(damages())(content))
    else:
        lines = content.decode().split("\r\n")
        if data.draw(st.booleans()):
            lines = data.draw(st.permutations(lines))
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at : at + data.draw(st.integers(0, 2))] = data.draw(st.lists(st.sampled_from(lines) | LINES, max_size=2))
        end, code = (
            data.draw(st.sampled_from(["\n", "\r\n"])),
            data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])),
        )
        path.write_bytes(end.join(lines).encode(code, "surrogatepass"))
    found = attempt("celeba", folder, "celeba")
    if found is not None:
        assert found.train.images.shape[1:] == (3, 64, 64)
        assert len(found.train) + len(found.test) <= FACES + 2
    path.write_bytes(content)
    assert_is_read_again(expected, attempt, "celeba", folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            0,
            b"000003.jpg",
            b"../../3.jpg",
            r"expected the name of a file, in no other folder, in line 5, got '../../3.jpg'",
        ),
        (0, b"000003.jpg", b"/etc/passwd", "in line 5, got '/etc/passwd'"),
        (0, b"000003.jpg", b"..\\3.jpg", "in line 5, got"),
        (0, b"000004.jpg", b"000003.jpg", "got 000003.jpg more than once, again in line 6"),
        (1, b"000004.jpg", b"000003.jpg", "got 000003.jpg more than once, again in line 4"),
        (2, b"000004.jpg", b"000003.jpg", "got 000003.jpg more than once, again in line 4"),
        (1, b"000004.jpg 0", b"000004.jpg 9", r"or 2 \(test\), got 9 in line 4"),
        (0, b"6\r\n", b"9" * 5000 + b"\r\n", "expected the number of images in line 1, got '999"),
        (0, b"\r\n000004.jpg  1", b"\r\n000004.jpg  5", "of 000004.jpg in line 6"),
    ],
)
def test_the_line_of_a_list_is_named(celeba, folder, refused, file, old, new, message):
    path = folder / celeba.LISTS[file]
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    with refused(f"{path}: .*{message}"):
        load_dataset("celeba", root=folder)


def drawing():
    ink = np.zeros((105, 105), dtype=np.uint8)
    ink[20:40, 30:50] = 255
    stream = io.BytesIO()
    Image.fromarray(255 - ink).convert("1").save(stream, "png")
    return stream.getvalue()


def write_drawings(path, *, names=("0000_01.png", "0001_01.png", "0002_01.png"), method=zipfile.ZIP_DEFLATED):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(f"images/A/character01/{name}", drawing())


@pytest.fixture
def drawings(tmp_path, decoded):
    """A data root of few drawings."""
    for part in ("background", "evaluation"):
        write_drawings(tmp_path / "root" / "omniglot-py" / f"images_{part}.zip")
    return tmp_path / "root"


@examples(80)
@given(damage=damages(), near_the_end=st.booleans())
def test_a_damaged_zip_is_read_or_refused(drawings, attempt, damage, near_the_end):
    """The directory, at the end, is where most of the ways to mislead a reader are."""
    expected = attempt("omniglot", drawings, "")
    path = drawings / "omniglot-py" / "images_background.zip"
    content = path.read_bytes()
    directory = content.index(b"PK\1\2") if near_the_end else 0
    path.write_bytes(content[:directory] + damage(content[directory:]))
    attempt("omniglot", drawings, "images_background.zip")
    path.write_bytes(content)
    assert_is_read_again(expected, attempt, "omniglot", drawings)


def set_bytes(content, mark, offset, value):
    """Bytes of every local header or directory entry, at an offset."""
    content, at = bytearray(content), -1
    while (at := content.find(mark, at + 1)) >= 0:
        content[at + offset : at + offset + len(value)] = value
    return bytes(content)


def encrypted(content):
    return set_bytes(set_bytes(content, b"PK\3\4", 6, b"\1"), b"PK\1\2", 8, b"\1")


def lying_about_sizes(content):
    return set_bytes(content, b"PK\1\2", 24, struct.pack("<I", 7))


def overlapping(content):
    return set_bytes(content, b"PK\1\2", 42, struct.pack("<I", 0))


def of_a_later_version(content):
    return set_bytes(content, b"PK\1\2", 6, b"\xff")


def of_method_99(content):
    return set_bytes(set_bytes(content, b"PK\3\4", 8, b"\x63"), b"PK\1\2", 10, b"\x63")


def without_its_end(content):
    return content[:-10]


@pytest.mark.parametrize(
    "change", [encrypted, lying_about_sizes, overlapping, of_a_later_version, of_method_99, without_its_end, bytes]
)
@pytest.mark.parametrize("dataset", ["omniglot", "celeba"])
def test_a_zip_that_misleads_is_refused(celeba, folder, drawings, attempt, dataset, change):
    celeba.zipped(folder, prefix="a/")
    archive = "img_align_celeba.zip" if dataset == "celeba" else "images_background.zip"
    root = folder if dataset == "celeba" else drawings
    (path,) = root.rglob(archive)
    path.write_bytes(change(path.read_bytes()))
    assert (attempt(dataset, root, archive) is not None) == (change is bytes)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_cannot_be_bounded_is_refused(drawings, attempt, refused, method):
    write_drawings(drawings / "omniglot-py" / "images_background.zip", method=method)
    with refused(rf"0001_01\.png|0000_01\.png.*compression method {method}, neither none nor deflate"):
        load_dataset("omniglot", root=drawings)
    assert attempt("omniglot", drawings, "images_background.zip") is None


def test_drawings_of_one_name_and_too_many_are_refused(drawings, refused, monkeypatch):
    path = drawings / "omniglot-py" / "images_background.zip"
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_drawings(path, names=["0000_01.png"] * 2)
    with refused(r"images_background\.zip: expected each drawing once, got two of one name; fetch"):
        load_dataset("omniglot", root=drawings)
    monkeypatch.setattr(omniglot, "_MOST_FILES", 2)
    write_drawings(path)
    with refused(r"1 to 2 of them, got 3$"):
        load_dataset("omniglot", root=drawings)


def test_entries_that_lead_elsewhere_lead_nowhere(celeba, folder, attempt, tmp_path):
    """Folders above, absolute names, links, a zip in the zip: read where they lie or left alone, and never unpacked."""
    celeba.zipped(folder, prefix="a/")
    path = folder / "img_align_celeba.zip"
    with zipfile.ZipFile(path) as archive:
        kept = [archive.read(f"a/{name}") for name in celeba.names(FACES)]
    link = zipfile.ZipInfo("b/000006.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        places = ["../", "../../../", "/", "/etc/", "a/../"]
        for place, name, content in zip(places, celeba.names(FACES), kept, strict=False):
            archive.writestr(place + name, content)
        archive.writestr("..\\..\\outside.jpg", b"x")
        archive.writestr("inner.zip", path.name)
        archive.writestr(link, "/etc/passwd")
    assert attempt("celeba", folder, "img_align_celeba.zip/b/000006.jpg") is None, "a link is no image"
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("b/000006.jpg", kept[5])
    assert attempt("celeba", folder, "img_align_celeba.zip: expected one image of each name") is None
    entries = {name: kept[number] for number, name in enumerate(celeba.names(FACES))}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"../../{name}", content)
    assert attempt("celeba", folder, "") is not None, "what lies above is read, and stays in the archive"


def write_matrix(path, *, compressed=False, classes=101, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    names = np.empty((1, classes), dtype=object)
    names[0] = [f"class {number}" for number in range(classes)]
    bits = np.random.default_rng(0).integers(0, 2, (24, 784), dtype=np.uint8)
    content = {"classnames": names, "X": bits, "Y": np.arange(1, 25, dtype=np.uint8)[None], **changes}
    scipy.io.savemat(path, content, do_compression=compressed)


@pytest.mark.parametrize("compressed", [False, True])
@examples(80)
@given(damage=damages(), near_a_header=st.booleans())
def test_a_damaged_matrix_is_read_or_refused(tmp_path, attempt, compressed, damage, near_a_header):
    """scipy's reader would end the process at one in some hundred of these."""
    path = tmp_path / "root" / "Caltech101Silhouettes" / "caltech101_silhouettes_28.mat"
    write_matrix(path, compressed=compressed)
    content = path.read_bytes()
    end = 600 if near_a_header else len(content)
    path.write_bytes(damage(content[:end]) + content[end:])
    found = attempt("caltech-silhouettes", tmp_path / "root", path.name)
    assert found is None or found.shape == (1, 28, 28)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": 3},
        {"X": np.zeros((24, 784)) * 1j},
        {"X": np.full((24, 784), "a")},
        {"X": {"a": 1}},
        {"Y": np.full((1, 24), 102)},
        {"Y": np.zeros((1, 24))},
        {"Y": np.ones((1, 25))},
        {"Y": np.full((1, 24), np.nan)},
        {"Y": np.full((1, 24), 1.5)},
        {"X": np.zeros((0, 784)), "Y": np.zeros((1, 0))},
        {"classnames": np.zeros(101)},
    ],
)
def test_matrices_that_are_no_silhouettes_are_refused(tmp_path, attempt, changes):
    path = tmp_path / "root" / "Caltech101Silhouettes" / "caltech101_silhouettes_28.mat"
    write_matrix(path, **changes)
    assert attempt("caltech-silhouettes", tmp_path / "root", path.name) is None


def test_matrices_are_those_that_scipy_wrote(tmp_path):
    shapes = {"i1": (3, 4), "u2": (1, 5), "f4": (2, 3, 4), "f8": (1, 1), "i8": (0, 3)}
    arrays = {f"v_{kind}": np.arange(np.prod(shape)).reshape(shape).astype(kind) for kind, shape in shapes.items()}
    texts = np.empty((2, 1), dtype=object)
    texts[:, 0] = ["a", "Äther ∂"]
    for compressed in (False, True):
        scipy.io.savemat(tmp_path / "m.mat", {**arrays, "texts": texts, "other": {"a": 1}}, do_compression=compressed)
        found = read_matrices(tmp_path / "m.mat", [*arrays, "texts", "absent"])
        assert found.keys() == {*arrays, "texts"} and found["texts"] == ["a", "Äther ∂"]
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


@examples(30)
@given(damage=damages(), packed=st.booleans())
def test_damaged_text_of_numbers_is_read_or_refused(tmp_path, attempt, damage, packed):
    """A number that is gone from one line and too many in another is no image that has moved."""
    folder = tmp_path / "root" / "MNIST_static"
    folder.mkdir(parents=True, exist_ok=True)
    bits = np.random.default_rng(0).integers(0, 2, (3, 784))
    text = "".join(" ".join(map(str, row)) + " \n" for row in bits).encode()
    (folder / "binarized_mnist_test.amat").write_bytes(text)
    path = folder / ("binarized_mnist_train.amat.gz" if packed else "binarized_mnist_train.amat")
    other = folder / ("binarized_mnist_train.amat" if packed else "binarized_mnist_train.amat.gz")
    other.unlink(missing_ok=True)
    path.write_bytes(damage(gzip.compress(text)) if packed else damage(text))
    found = attempt("binarized-mnist", tmp_path / "root", path.name)
    if found is not None:
        assert len(found.train) <= 3
        assert packed <= np.array_equal(found.train.images[:, 0].reshape(-1, 784) // 255, bits[: len(found.train)])
    moved = text.replace(b" \n", b" ", 1).replace(b" ", b"\n", 1)
    path.write_bytes(gzip.compress(moved) if packed else moved)
    assert attempt("binarized-mnist", tmp_path / "root", path.name) is None


BOMBS = """
import resource, sys
from pyro_avae.data import load_dataset
from pyro_avae.errors import InputError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before = peak()
for place in sys.argv[1:]:
    dataset, root, name = place.split("|")
    try:
        load_dataset(dataset, root=root or None)
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and name in str(error), error
    else:
        raise AssertionError(place)
    print(name, f"{peak() - before:.0f}", flush=True)
"""


def test_files_that_unpack_to_far_more_take_no_memory(celeba, folder, drawings, tmp_path, environment_of_the_cache):
    """In a process of its own, MB beyond what the imports took: gigabytes of zeros and pixels, in few of files."""
    zeros = io.BytesIO()
    with gzip.GzipFile(fileobj=zeros, mode="wb", compresslevel=1) as stream:
        for _ in range(2**9):
            stream.write(bytes(2**20))
    places = []
    for name, content in (("huge.png", huge_png(2**15, 2**15)), ("large.png", huge_png(9000, 9000))):
        own = tmp_path / name
        own.mkdir()
        for number in range(3):
            (own / f"{number}.png").write_bytes(content)
        places.append(f"folder:{own}||0.png")
    (folder / "img_align_celeba" / "000002.jpg").write_bytes(huge_png(2**15, 2**15))
    places.append(f"celeba|{folder}|000002.jpg")
    packed = celeba.write_source(tmp_path / "packed", FACES)
    celeba.zipped(packed, prefix="")
    with zipfile.ZipFile(packed / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in celeba.names(FACES):
            archive.writestr(name, bytes(2**28) if name == "000002.jpg" else celeba.jpeg(celeba.face(1)))
    places.append(f"celeba|{packed}|000002.jpg")
    with zipfile.ZipFile(drawings / "omniglot-py" / "images_background.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A/character01/0000_01.png", bytes(2**28))
    places.append(f"omniglot|{drawings}|0000_01.png")
    (drawings / "MNIST" / "raw").mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        header = b"\0\0\x08" + bytes([int(part[-1])]) + b"\xff\xff\xff\xff" + b"\0\0\0\x1c" * (int(part[-1]) - 1)
        (drawings / "MNIST" / "raw" / f"{part}-ubyte.gz").write_bytes(gzip.compress(header) + zeros.getvalue())
    places.append(f"mnist|{drawings}|train-images-idx3")
    (drawings / "MNIST_static").mkdir()
    for part in ("train", "test"):
        (drawings / "MNIST_static" / f"binarized_mnist_{part}.amat.gz").write_bytes(zeros.getvalue())
    places.append(f"binarized-mnist|{drawings}|binarized_mnist_train")
    command = [sys.executable, "-c", BOMBS, *places]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment_of_the_cache)
    assert done.returncode == 0, done.stderr
    found = {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()}
    assert len(done.stdout.splitlines()) == len(places)
    assert found["train-images-idx3"] < 100, "up to here nothing is unpacked"
    assert found["binarized_mnist_train"] < 400, "twice as many characters as the right file has"


@pytest.fixture
def environment_of_the_cache(decoded):
    return {**os.environ, "XDG_CACHE_HOME": str(decoded.parent.parent), "OMP_NUM_THREADS": "1"}
