"""experiments/gpu/luggage.py, on tiny wheels and without network."""

import subprocess
import sys
import zipfile

import pytest
from experiments.gpu import luggage

KIB = 1024


def make_zip(path, **files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def fake_download(requirements, folder, python):
    for requirement in requirements:
        name, _, version = requirement.replace("-", "_").partition("==")
        make_zip(folder / f"{name}-{version}-py3-none-any.whl", **{f"{name}/__init__.py": f"version = {version!r}\n"})


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A working tree of 30 KiB, of which 10 are not added, and a file of 1 MiB that git ignores."""
    root = tmp_path / "tree"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setattr(luggage, "download", fake_download)
    monkeypatch.setattr(luggage, "version_of", dict.fromkeys(luggage.PACKAGES, "1.0").__getitem__)
    subprocess.run(["git", "init", "-q"], check=True)
    (root / ".git" / "info" / "exclude").write_text("/luggage/\nignored\n")
    (root / "added").write_bytes(bytes(20 * KIB))
    (root / "deleted").write_bytes(b"")
    subprocess.run(["git", "add", "added", "deleted"], check=True)
    (root / "deleted").unlink()
    (root / "new").write_bytes(bytes(10 * KIB))
    (root / "ignored").write_bytes(bytes(luggage.MIB))
    return root


@pytest.fixture
def peers(tmp_path):
    names = ("training/__init__.py", "training/networks.py", "torch_utils/misc.py", "dnnlib/util.py")
    for name in (*names, "training/loss.py", "train.py"):
        path = tmp_path / "peers" / "edm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(KIB))
    return tmp_path / "peers"


def packed(root):
    return {str(path.relative_to(root / "luggage")) for path in (root / "luggage").rglob("*") if path.is_file()}


def test_all_parts_are_packed_and_weighed(tree, peers, tmp_path, capsys):
    make_zip(tmp_path / "images.zip", image=bytes(KIB))
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(bytes(50 * KIB))
    checkpoint.chmod(0o444)
    options = ["--out=luggage", f"--cifar10={tmp_path / 'images.zip'}", f"--classifier={tmp_path / 'run'}"]
    for _ in range(2):  # the second time it is all there
        luggage.main([*options, f"--peers={peers}"])
    found = packed(tree)
    wheels = {name for name in found if name.startswith("wheels/")}
    assert len(wheels) == len(luggage.PACKAGES)
    edm = {f"peers/edm/{name}" for name in ("training/__init__.py", "training/networks.py")}
    edm |= {"peers/edm/torch_utils/misc.py", "peers/edm/dnnlib/util.py"}
    assert found - wheels == {"cifar10-train.zip", "classifier.ckpt"} | edm
    lines = capsys.readouterr().out.splitlines()[-11:]
    assert lines[0] == "    0.00 MiB  cifar10-train.zip"
    assert lines[1] == "    0.05 MiB  classifier.ckpt"
    assert lines[2].endswith(" peers/edm")
    assert lines[-2] == "    0.03 MiB  working tree, 2 files"
    assert lines[-1].endswith("MiB  total, of 62 MiB")


def test_what_is_not_asked_for_stays_and_old_wheels_go(tree, tmp_path):
    make_zip(tmp_path / "images.zip", image=b"")
    luggage.main(["--out=luggage", f"--cifar10={tmp_path / 'images.zip'}"])
    (tree / "luggage" / "wheels" / "old-0.1-py3-none-any.whl").write_bytes(b"")
    luggage.main(["--out=luggage"])
    assert "cifar10-train.zip" in packed(tree)
    assert len(packed(tree)) == 1 + len(luggage.PACKAGES)


def test_the_weight_is_of_the_luggage_and_the_tree(tree, capsys):
    (tree / "luggage" / "peers" / "edm" / "deep").mkdir(parents=True)
    (tree / "luggage" / "peers" / "edm" / "deep" / "code.py").write_bytes(bytes(15 * KIB))
    (tree / "luggage" / "file").write_bytes(bytes(5 * KIB))
    total = 50 * KIB / luggage.MIB
    luggage.weigh(tree / "luggage", total)
    with pytest.raises(luggage.LuggageError, match=r"0\.05 MiB is too much: 0\.04\d+ MiB may travel"):
        luggage.weigh(tree / "luggage", total - 1e-6)


def test_too_much_is_refused(tree):
    with pytest.raises(SystemExit, match="too much"):
        luggage.main(["--out=luggage", "--limit=0.01"])


def test_a_folder_that_git_does_not_ignore_is_refused(tree, tmp_path):
    for folder in ("other", str(tmp_path / "outside")):
        with pytest.raises(SystemExit, match="that git ignores"):
            luggage.main([f"--out={folder}"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--cifar10=none.zip", r"--cifar10: there is no file none\.zip"),
        ("--cifar10=added", "--cifar10=added is no zip file"),
        ("--classifier=none.ckpt", r"--classifier: there is no file none\.ckpt"),
        ("--classifier=.", "--classifier: there is no file checkpoints/last.ckpt"),
        ("--peers=none", "--peers: there is no none/edm/training/__init__.py"),
    ],
)
def test_a_missing_file_is_reported_before_anything_is_downloaded(tree, monkeypatch, option, message):
    monkeypatch.setattr(luggage, "download", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(SystemExit, match=message):
        luggage.main(["--out=luggage", option])
    assert not (tree / "luggage").exists()


def test_a_package_that_is_not_installed_is_reported():
    with pytest.raises(luggage.LuggageError, match="no-such-package is not installed here"):
        luggage.version_of("no-such-package")


def test_a_failure_of_pip_is_reported():
    with pytest.raises(luggage.LuggageError, match=r"pip failed: .*no-such-command(.|\n)*unknown command"):
        luggage.pip("no-such-command")


@pytest.mark.parametrize(
    ("name", "message"),
    [("package/code.so", "not pure Python"), ("package-1.0.data/purelib/code.py", "must be installed")],
)
def test_wheels_that_cannot_be_unpacked_are_refused(tmp_path, name, message):
    make_zip(tmp_path / "package-1.0-py3-none-any.whl", **{name: b""})
    with pytest.raises(luggage.LuggageError, match=message):
        luggage.check(tmp_path, 1)


def test_a_missing_wheel_is_reported(tmp_path):
    make_zip(tmp_path / "package-1.0-py3-none-any.whl", **{"package-1.0.data/scripts/tool": b""})
    luggage.check(tmp_path, 1)
    with pytest.raises(luggage.LuggageError, match=r"1 wheel\(s\) instead of 2"):
        luggage.check(tmp_path, 2)


def test_failed_packing_keeps_the_old_wheels(tree, monkeypatch):
    luggage.main(["--out=luggage"])
    before = packed(tree)
    monkeypatch.setattr(luggage, "download", lambda *_: None)
    with pytest.raises(SystemExit, match="instead of"):
        luggage.main(["--out=luggage"])
    assert packed(tree) == before


def test_unpacked_packages_can_be_imported(tree):
    luggage.main(["--out=luggage"])
    for _ in range(2):
        luggage.main(["--unpack=luggage", "--into=site"])
    code = "import diffusers; print(diffusers.version, diffusers.__file__)"
    found = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "site"}, capture_output=True, text=True)
    assert found.stdout.split() == ["1.0", str(tree / "site" / "diffusers" / "__init__.py")]


def test_nothing_to_unpack_is_reported(tree):
    with pytest.raises(SystemExit, match="there are no wheels in none/wheels"):
        luggage.main(["--unpack=none", "--into=site"])
    (tree / "luggage" / "wheels").mkdir(parents=True)
    (tree / "luggage" / "wheels" / "a-1-py3-none-any.whl").write_bytes(b"half")
    with pytest.raises(SystemExit, match="is damaged"):
        luggage.main(["--unpack=luggage", "--into=site"])


@pytest.mark.parametrize("arguments", [[], ["--unpack=luggage"], ["--out=luggage", "--into=site"]])
def test_options_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        luggage.main(arguments)
    assert error.value.code == 2
