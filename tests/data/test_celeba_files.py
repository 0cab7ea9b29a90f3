"""What can be wrong with the files of CelebA, and the errors that name it."""

import os
import zipfile

import pytest

from pyro_avae.data import load_dataset


def replaced(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def flip(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("size", [(76, 93), (178, 220), (178, 178), (218, 178)])
def test_an_image_of_other_proportions_or_too_small_is_refused_by_name(celeba, celeba_root, refused, size):
    (celeba_root / "celeba_half/img_align_celeba/000005.jpg").write_bytes(celeba.jpeg(celeba.face(5, size)))
    with refused(rf"celeba_half/img_align_celeba/000005.jpg: expected .* 178x218 .* 77 wide, got {size[0]}x{size[1]}$"):
        load_dataset("celeba", root=celeba_root)


def test_a_root_without_celeba_is_answered_with_what_is_missing_where(celeba, tmp_path, celeba_root, refused):
    folder = celeba_root / "celeba_half"
    with refused(
        r"^celeba: expected list_attr_celeba.txt, list_eval_partition.txt, identity_CelebA.txt and img_align_celeba/ "
        r"or img_align_celeba.zip in one folder, got no folder \S*nowhere/celeba; no folder \S*nowhere/celeba_half; no "
        r"folder \S*nowhere; name a data root .* color-digits, which needs no download$"
    ):
        load_dataset("celeba", root=tmp_path / "nowhere")
    with refused("got no folder .*cache/pyro_avae/celeba;"):
        load_dataset("celeba")
    (folder / "identity_CelebA.txt").unlink()
    with refused(r"; no identity_CelebA.txt in \S*/celeba_half; no list_attr_celeba.txt, .*/root;"):
        load_dataset("celeba", root=celeba_root)
    (folder / "img_align_celeba").rename(folder / "images")
    with refused(r"no identity_CelebA.txt, img_align_celeba/ or .zip in \S*/celeba_half;"):
        load_dataset("celeba", root=celeba_root)


@pytest.mark.parametrize("packed", [False, True])
def test_an_image_of_the_list_that_is_not_there_is_named(celeba, celeba_root, refused, packed):
    folder = celeba_root / "celeba_half"
    (folder / "img_align_celeba/000009.jpg").unlink()
    if packed:
        celeba.zipped(folder, prefix="a/")
    with refused(r"img_align_celeba\S*: expected every image of the attribute list, got no file 000009.jpg;"):
        load_dataset("celeba", root=celeba_root, limit=1)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"no image"])
def test_a_damaged_image_is_named(celeba, celeba_root, refused, packed, damage):
    folder = celeba_root / "celeba_half"
    image = folder / "img_align_celeba/000003.jpg"
    image.write_bytes(damage(image.read_bytes()))
    if packed:
        celeba.zipped(folder, prefix="a/")
    where = "img_align_celeba.zip/a/000003.jpg" if packed else "img_align_celeba/000003.jpg"
    with refused(f"{where}: expected an image that Pillow can read, got .*; unpack or fetch"):
        load_dataset("celeba", root=celeba_root)


def test_a_damaged_zip_is_named(celeba, celeba_root, refused):
    folder = celeba_root / "celeba_half"
    celeba.zipped(folder, prefix="")
    archive = folder / "img_align_celeba.zip"
    content = archive.read_bytes()
    archive.write_bytes(flip(content, 300))
    with refused("img_align_celeba.zip/000001.jpg: .*got BadZipFile: Bad CRC-32"):
        load_dataset("celeba", root=celeba_root)
    archive.write_bytes(content[:-100])
    with refused("img_align_celeba.zip: expected a zip of images, got BadZipFile: .*; fetch it again"):
        load_dataset("celeba", root=celeba_root)


def test_a_zip_with_two_images_of_one_name_is_refused(celeba, celeba_root, refused):
    folder = celeba_root / "celeba_half"
    celeba.zipped(folder, prefix="a/")
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "a") as archive:
        archive.writestr("thumbnails/000007.jpg", celeba.jpeg(celeba.face(9)))
    with refused("img_align_celeba.zip: expected one image of each name, got 000007.jpg in 2 folders; take"):
        load_dataset("celeba", root=celeba_root)


def test_a_pipe_in_an_images_place_is_not_waited_for(celeba_root, refused):
    image = celeba_root / "celeba_half/img_align_celeba/000002.jpg"
    image.unlink()
    os.mkfifo(image)
    with refused("got no file 000002.jpg"):
        load_dataset("celeba", root=celeba_root)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (0, b"24\r\n", b"25\r\n", "expected 25 images, as its first line says, got 24 lines"),
        (0, b"24\r\n", b"", "expected the number of images in line 1, got '5_o_Clock"),
        (0, b"24\r\n", b"0\r\n", "expected the number of images in line 1, got '0"),
        (0, b"Bald", b"Smiling", "expected the names of the attributes, each once, in line 2"),
        (0, b"Bald ", b"", "expected a file name and 39 whole numbers in line 3, got '000001.jpg"),
        (0, b"000004.jpg", b"000003.jpg", "expected each image once, got 000003.jpg more than once"),
        (0, b"000001.jpg ", b"", "expected a file name and 40 whole numbers in line 3"),
        (0, b"\r\n000004.jpg  1", b"\r\n000004.jpg  0", "expected -1 or 1, got 0 for 5_o_Clock_Shadow of 000004.jpg"),
        (1, b"000003.jpg 0", b"000003.jpg 3", r"expected 0 \(train\), 1 \(valid\) or 2 \(test\), got 3"),
        (1, b"000003.jpg 0\r\n", b"", "for each image of list_attr_celeba.txt, got none for 000003.jpg and 0 others"),
        (2, b"000003.jpg 2", b"000003.jpg x", "expected a file name and 1 whole numbers in line 3, got '000003.jpg x'"),
        (2, b"000003.jpg", b"900003.jpg", "got none for 000003.jpg and 0 others"),
        (2, b"000003.jpg", b"\xff\xfe", "expected a text file, got: 'utf-8'"),
    ],
)
def test_a_list_that_is_malformed_or_does_not_fit_is_refused_by_name(
    celeba, celeba_root, refused, file, old, new, message
):
    path = celeba_root / "celeba_half" / celeba.LISTS[file]
    replaced(path, old, new)
    with refused(f"{path}: .*{message}.*; fetch the lists again"):
        load_dataset("celeba", root=celeba_root)


def test_an_empty_list_is_refused(celeba, celeba_root, refused):
    (celeba_root / "celeba_half" / celeba.LISTS[2]).write_bytes(b"")
    with refused("identity_CelebA.txt: expected a line for at least one image, got none"):
        load_dataset("celeba", root=celeba_root)
