import numpy as np
import pytest
import torch
from helpers.extractors import TinyExtractor

from langevin.errors import UserError
from langevin.metrics.gathered import Gaussian
from langevin.metrics.reference import Reference, read_statistics, write_statistics

CPU = torch.device("cpu")


def images(count=70, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


LABELS = np.arange(70) % 5


class Another(TinyExtractor):
    """The same network under other weights' hash."""

    sha256 = "1" * 64


def gathered(reference, directory, moments_of=("features", "spatial"), rows_of=("features",), make=None):
    """How many images passed through the extractor; the reference is gathered."""
    extractor = (make or TinyExtractor)()
    reference.gather(extractor, moments_of, rows_of, CPU, directory)
    return extractor.images_seen


def outputs(made_images):
    extractor = TinyExtractor()
    return extractor(torch.from_numpy(made_images).permute(0, 3, 1, 2))


def assert_gathered(reference, made_images):
    expected = outputs(made_images)
    assert torch.equal(reference.rows("features"), expected["features"])
    for name in ("features", "spatial"):
        rows = expected[name].double().numpy()
        moments = reference.moments(name)
        assert moments.number == len(rows)
        np.testing.assert_allclose(moments.mean.numpy(), rows.mean(0), rtol=1e-12)
        np.testing.assert_allclose(moments.covariance.numpy(), np.cov(rows.T), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk", [16, 48, 256])
def test_what_is_gathered_is_right_whatever_is_read_at_once(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr("langevin.metrics.reference.CHUNK", chunk)
    reference = Reference(images(), LABELS)
    assert gathered(reference, tmp_path) == 70
    assert_gathered(reference, images())
    assert gathered(reference, tmp_path) == 0


def test_equal_images_are_not_passed_through_again(tmp_path):
    first, second = Reference(images(), LABELS), Reference(images().copy(), LABELS.copy())
    gathered(first, tmp_path)
    np.save(tmp_path / "images.npy", images())
    mapped = Reference(np.load(tmp_path / "images.npy", mmap_mode="r"), LABELS)
    for again in (second, mapped):
        assert gathered(again, tmp_path) == 0
        assert_gathered(again, images())
        assert torch.equal(again.moments("features").covariance, first.moments("features").covariance)


@pytest.mark.parametrize(
    ("made_images", "labels", "make"),
    [
        (images(seed=1), LABELS, TinyExtractor),
        (images()[:69], LABELS[:69], TinyExtractor),
        (images()[::-1].copy(), LABELS, TinyExtractor),
        (images()[..., :1].copy(), LABELS, TinyExtractor),
        (images().reshape(70, 4, 16, 3), LABELS, TinyExtractor),
        (images(), (LABELS + 1) % 5, TinyExtractor),
        (images(), None, TinyExtractor),
        (images(), LABELS, Another),
    ],
)
def test_other_images_labels_or_extractors_are(made_images, labels, make, tmp_path):
    gathered(Reference(images(), LABELS), tmp_path)
    other = Reference(made_images, labels)
    assert gathered(other, tmp_path, make=make) == len(made_images)
    assert_gathered(other, made_images)


def test_what_is_not_kept_yet_is_gathered(tmp_path):
    gathered(Reference(images()), tmp_path, moments_of=("features",), rows_of=())
    reference = Reference(images())
    assert gathered(reference, tmp_path) == 70
    assert_gathered(reference, images())
    assert gathered(Reference(images()), tmp_path) == 0


@pytest.mark.parametrize("name", ["features_moments.npz", "spatial_moments.npz", "features_rows.npy"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:100],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-10],
        lambda data: b"garbage" * 99,
    ],
)
def test_a_damaged_file_is_made_anew(name, damage, tmp_path):
    gathered(Reference(images()), tmp_path)
    (file,) = tmp_path.glob(f"*/{name}")
    file.write_bytes(damage(file.read_bytes()))
    reference = Reference(images())
    assert gathered(reference, tmp_path) == 70
    assert_gathered(reference, images())
    assert gathered(Reference(images()), tmp_path) == 0


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize(
    ("moments_of", "rows_of", "which"),
    [(("features",), (), "some of its 70 images"), (("features",), ("features",), "image 37 of its 70")],
)
def test_features_that_are_not_finite_are_refused(value, moments_of, rows_of, which, tmp_path):
    """Also where they are kept from a run before."""

    class Diverging(TinyExtractor):
        """Of the one black image there is it gives no number."""

        def extract(self, images):
            found = super().extract(images)
            found["features"][(images == 0).flatten(1).all(1), 3] = value
            return found

    given = images()
    given[37] = 0
    for _ in range(2):
        with pytest.raises(UserError, match=rf"^reference: the features of {which}.*by tiny-00000000 are not finite; "):
            gathered(Reference(given), tmp_path, moments_of, rows_of, Diverging)


def test_a_damaged_number_is_noticed(tmp_path):
    gathered(Reference(images()), tmp_path)
    (file,) = tmp_path.glob("*/features_moments.npz")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert gathered(Reference(images()), tmp_path) == 70


def test_a_folder_that_cannot_be_written_costs_a_warning_only(tmp_path):
    (tmp_path / "file").touch()
    reference = Reference(images())
    with pytest.warns(UserWarning, match="cannot be kept for the next run"):
        gathered(reference, tmp_path / "file")
    assert_gathered(reference, images())


def statistics(size=16, names=("mu", "sigma"), seed=0):
    rows = np.random.default_rng(seed).normal(size=(40, size))
    return {names[0]: rows.mean(0), names[1]: np.cov(rows.T)}


def test_published_statistics_are_read(tmp_path):
    """As pytorch-fid, clean-fid and EDM write them."""
    np.savez(tmp_path / "edm.npz", **statistics())
    reference = read_statistics(str(tmp_path / "edm.npz"))
    assert (reference.samples, reference.labels, reference.number, reference.extractor) == (None, None, None, None)
    assert gathered(reference, tmp_path, moments_of=("features",), rows_of=()) == 0
    for part, expected in zip(reference.moments("features")[1:], statistics().values(), strict=True):
        assert np.array_equal(part.numpy(), expected)


def test_published_statistics_of_spatial_features_and_images_are_read(tmp_path):
    """As ADM writes them."""
    spatial = statistics(12, ("mu_s", "sigma_s"), 1)
    np.savez(tmp_path / "adm.npz", arr_0=images(), arr_1=LABELS, **statistics(), **spatial)
    reference = read_statistics(str(tmp_path / "adm.npz"))
    assert np.array_equal(reference.samples, images())
    assert np.array_equal(reference.labels, LABELS)
    assert gathered(reference, tmp_path, rows_of=()) == 0
    assert np.array_equal(reference.moments("spatial").covariance.numpy(), spatial["sigma_s"])
    assert np.array_equal(reference.moments("features").mean.numpy(), statistics()["mu"])
    assert gathered(reference, tmp_path) == 70  # the rows are the images'
    assert torch.equal(reference.rows("features"), outputs(images())["features"])
    assert np.array_equal(reference.moments("features").mean.numpy(), statistics()["mu"])


def test_a_file_of_images_alone_holds_no_statistics(tmp_path):
    np.savez(tmp_path / "images.npz", arr_0=images())
    assert read_statistics(str(tmp_path / "images.npz")) is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(16)}, "sigma"),
        ({"mu": np.zeros(16), "sigma": np.eye(15)}, r"mu is of shape \(16,\), sigma of \(15, 15\)"),
        ({"mu": np.zeros((2, 8)), "sigma": np.eye(2)}, r"mu is of shape \(2, 8\)"),
        ({"mu": np.zeros(4), "sigma": np.full((4, 4), np.nan)}, "not finite"),
        ({"mu": np.zeros(4), "sigma": np.full((4, 4), np.inf)}, "not finite"),
        ({"mu": np.array([None]), "sigma": np.eye(1)}, "pickle"),
        (statistics() | {"number": np.inf}, "infinity"),
        (statistics() | {"number": np.nan}, "NaN"),
        (statistics() | {"number": np.arange(2)}, "scalar"),
    ],
)
def test_unfit_statistics_are_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=rf"reference=.*bad\.npz: cannot be read .*{message}"):
        read_statistics(str(tmp_path / "bad.npz"))


@pytest.mark.parametrize("content", [None, b"", b"nothing", b"PK\x03\x04broken"])
def test_unreadable_statistics_are_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"reference=.*bad\.npz: cannot be read"):
        read_statistics(str(tmp_path / "bad.npz"))


def test_written_statistics_come_back(tmp_path):
    reference = Reference(images())
    gathered(reference, tmp_path)
    write_statistics(tmp_path / "own.npz", reference, TinyExtractor(), ("features", "spatial"))
    again = read_statistics(str(tmp_path / "own.npz"))
    assert (again.extractor, again.number) == (TinyExtractor.name, 70)
    again.check(TinyExtractor(), ("features", "spatial"), ())
    assert gathered(again, tmp_path / "elsewhere", rows_of=()) == 0
    for output in ("features", "spatial"):
        number, mean, covariance = again.moments(output)
        assert number == 70
        assert torch.equal(mean, reference.moments(output).mean)
        assert torch.equal(covariance, reference.moments(output).covariance)
    with np.load(tmp_path / "own.npz") as arrays:  # as others read it
        assert np.array_equal(arrays["mu"], reference.moments("features").mean.numpy())
        assert np.array_equal(arrays["sigma_s"], reference.moments("spatial").covariance.numpy())


def published(extractor=None, size=16):
    return Reference(None, None, {"features": Gaussian(0, torch.zeros(size), torch.eye(size))}, extractor, "ab")


def test_statistics_of_the_same_features_are_taken():
    published(None).check(TinyExtractor(official=True), ("features",), ())
    published(TinyExtractor.name).check(TinyExtractor(), ("features",), ())


@pytest.mark.parametrize(
    ("reference", "official", "message"),
    [
        (published(None), False, "of Inception's official weights as far as one can know, but the features are tiny-0"),
        (published("other-12345678"), False, "statistics of the features other-12345678, but these are tiny-00000000"),
        (published("other-12345678"), True, "statistics of the features other-12345678, but these are tiny-00000000"),
        (published(None, 15), True, "statistics of 15 features, but tiny-00000000 has 16"),
    ],
)
def test_statistics_of_other_features_are_refused(reference, official, message):
    with pytest.raises(UserError, match=message):
        reference.check(TinyExtractor(official), ("features",), ())


@pytest.mark.parametrize(("moments_of", "rows_of"), [(("features", "spatial"), ()), (("features",), ("features",))])
def test_statistics_alone_are_refused_where_more_is_asked_for(moments_of, rows_of):
    with pytest.raises(UserError, match=r"holds statistics alone \(features\), but the metrics ask for more"):
        published(None).check(TinyExtractor(official=True), moments_of, rows_of)
    Reference(images()).check(TinyExtractor(), moments_of, rows_of)
