import numpy as np
import pytest

from bigxfer import durable, tree

TREE = {"a": {"kernel": np.zeros((2, 3))}, "head": {"bias": np.ones(3)}}


def test_flatten_unflatten():
    assert tree.names(TREE) == ["a/kernel", "head/bias"]
    assert tree.names(tree.unflatten(tree.flatten(TREE))) == tree.names(TREE)
    assert tree.count(TREE) == 9


def test_label_wants_total_and_used_rules():
    labels = tree.label(TREE, {"head/.*": "train", ".*": "freeze"})
    assert labels == {"a": {"kernel": "freeze"}, "head": {"bias": "train"}}
    with pytest.raises(ValueError, match="no rule matches the parameter a/kernel"):
        tree.label(TREE, {"head/.*": "train"})
    with pytest.raises(ValueError, match="match none"):
        tree.label(TREE, {".*": "train", "haed/.*": "train"})


def test_take():
    assert tree.names(tree.take(TREE, "head/.*")) == ["head/bias"]
    with pytest.raises(ValueError, match="no parameter matches"):
        tree.take(TREE, "tail/.*")


def test_merge_replaces_all_but_what_is_kept():
    source = {"a": {"kernel": np.full((2, 3), 7.0)}, "head": {"bias": np.zeros(5)}}
    merged = tree.merge(TREE, source, keep="head/.*")
    assert merged["a"]["kernel"][0, 0] == 7
    np.testing.assert_array_equal(merged["head"]["bias"], np.ones(3))
    with pytest.raises(ValueError, match=r"shape: head/bias is \(5,\).*wants \(3,\)"):
        tree.merge(TREE, source)
    with pytest.raises(ValueError, match="missing: a/kernel"):
        tree.merge(TREE, {"head": {"bias": np.ones(3)}})
    with pytest.raises(ValueError, match=r"extra: b \(1,\)"):
        tree.merge(TREE, {**TREE, "b": np.ones(1)})


def test_npz_roundtrip(tmp_path):
    tree.save_npz(tmp_path / "p.npz", TREE)
    back = tree.load_npz(tmp_path / "p.npz")
    assert tree.digest(back) == tree.digest(TREE)
    assert tree.digest(tree.unflatten(dict(reversed(tree.flatten(TREE).items())))) == (
        tree.digest(TREE)
    )


@pytest.mark.parametrize("beside", [True, False])
def test_forty_of_forty_flipped_bits_are_noticed(tmp_path, beside):
    """With the checksum file any bit; without it any bit of an array's bytes."""
    rng = np.random.default_rng(0)
    path = tmp_path / "p.npz"
    tree.save_npz(path, {"w": rng.normal(size=(50, 50))})
    whole = path.read_bytes()
    if not beside:
        (tmp_path / "p.npz.sha256").unlink()
    for _ in range(40):
        broken = bytearray(whole)
        low, high = (0, len(whole)) if beside else (200, len(whole) - 200)
        broken[rng.integers(low, high)] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="damaged|not a readable npz"):
            tree.load_npz(path)


def test_a_kill_while_a_file_is_replaced_leaves_a_sound_one(tmp_path, monkeypatch):
    path = tmp_path / "p.npz"
    tree.save_npz(path, TREE)
    write = durable.write

    def killed(where, data):
        if where != path:
            raise KeyboardInterrupt
        write(where, data)

    monkeypatch.setattr(durable, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        tree.save_npz(path, {"w": np.ones(3)})
    assert tree.load_npz(path)["w"].tolist() == [1, 1, 1]


def test_no_pickle(tmp_path):
    with pytest.raises(ValueError, match="[Oo]bject"):
        tree.save_npz(tmp_path / "p.npz", {"w": np.array([{}], object)})
    with pytest.raises(FileNotFoundError, match=r"gone\.npz"):
        tree.load_npz(tmp_path / "gone.npz")
