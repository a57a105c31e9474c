"""An evaluation from a table of photos and weights to its report, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from medsynth.corpus import evaluating
from medsynth.corpus.evaluating import Order
from medsynth.errors import CorpusError, UserError
from medsynth.evaluation.encoder import Encoder, Network
from medsynth.skin import generator, pairs
from medsynth.skin.generator import GeneratorSettings
from medsynth.skin.model import SkinModel
from tests import skin_model
from tests.recipes.test_skin import make, run
from tests.skin.photos import change_row, write_photos

CONDITIONS = ("NEV", "BCC") * 9


def silent(*_: object) -> None:
    pass


def order(folder: Path, **changes: object) -> Order:
    given: dict[str, object] = {
        "real": write_photos(folder / "photos", CONDITIONS),
        "out": str(folder / "out"),
        "corpus": None,
        "weights": skin_model.save(folder),
        "encoder": None,
        "count": 12,
        "turing": 8,
        "encoder_steps": 1,
        "seed": 0,
    }
    return Order(**{**given, **changes})  # type: ignore[arg-type]


def test_weights_are_judged_and_the_encoder_is_used_again(tmp_path: Path) -> None:
    first = order(tmp_path)
    told = evaluating.evaluate(first, silent, silent)
    assert told == json.loads((tmp_path / "out" / evaluating.FIGURES).read_text())
    assert {
        "fidelity",
        "memorization",
        "tone",
        "contrast",
        "outlines",
        "tone_sweep",
        "moved",
        "growing",
        "variety",
    } <= set(told)
    assert told["fidelity"]["whole"]["real"] == 4
    assert told["fidelity"]["whole"]["too_few"]
    assert "whether the held-out patients are new to them is not known" in told["notes"][0]
    page = (tmp_path / "out" / evaluating.REPORT).read_text()
    for text in ("of 4 seeds", "of the 12 cells", "24 lesions grown", "changed / asked, median"):
        assert text in page
    for title in ("One lesion over six skin types", "One map over growing lesions", "12 synthetic pictures"):
        assert title in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (tmp_path / "out" / evaluating.TURING).exists()
    encoder = str(tmp_path / "out" / evaluating.ENCODER)
    again = evaluating.evaluate(order(tmp_path, encoder=encoder, out=str(tmp_path / "again")), silent, silent)
    assert again == told
    assert Encoder.load(encoder).sha256 == told["encoder"]["sha256"]


def test_a_corpus_is_judged_with_its_weights_and_without(tmp_path: Path) -> None:
    weights, corpus = skin_model.save(tmp_path), str(tmp_path / "corpus")
    make(Path(corpus), run(weights))
    told = evaluating.evaluate(order(tmp_path, corpus=corpus, weights=None, turing=None), silent, silent)
    assert "12 of 24 rows of" in told["subject"]
    assert any("rows that have the condition" in note for note in told["notes"])
    assert told["growing"] is not None
    assert not (tmp_path / "out" / evaluating.TURING).exists()
    encoder = str(tmp_path / "out" / evaluating.ENCODER)
    (tmp_path / "other").mkdir()
    other = skin_model.save(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="not the weights that drew"):
        evaluating.evaluate(order(tmp_path, corpus=corpus, weights=other, encoder=encoder), silent, silent)
    without = order(tmp_path, corpus=corpus, weights=None, encoder=encoder)
    Path(weights).unlink()
    again = evaluating.evaluate(without, silent, silent)
    assert again["growing"] is None
    assert any("are not at" in note and "--weights" in note for note in again["notes"])
    assert again["fidelity"] == told["fidelity"]
    assert again["tone"] == told["tone"]


def test_pictures_without_skin_are_told_of_in_a_report(tmp_path: Path) -> None:
    skin = SkinModel.load(skin_model.save(tmp_path))
    network = generator.build(GeneratorSettings(kind="unet", size=32, width=4, widest=8), len(skin.conditions))
    grey = SkinModel(network, skin.conditions, skin.geometry, {})
    for weight in network.parameters():
        weight.zero_()
    grey.save(str(tmp_path / "grey"))
    given = order(tmp_path, weights=str(tmp_path / "grey"), turing=None)
    told = evaluating.evaluate(given, silent, silent)
    assert told["tone"]["measured"] == told["contrast"]["synthetic"]["measured"] == 0
    page = (tmp_path / "out" / evaluating.REPORT).read_text()
    assert "0 of 12 pictures could be measured" in page
    assert "none of the 12 synthetic pictures could be measured" in page


@pytest.mark.parametrize(("count", "turing"), [(12, 26), (60, 40)])
def test_a_blinded_page_of_too_many_is_refused_before_anything_is_learnt(
    tmp_path: Path, count: int, turing: int
) -> None:
    said: list[str] = []
    with pytest.raises(UserError, match=f"--turing {turing} needs {turing // 2} pictures of each kind; there are 18"):
        evaluating.evaluate(order(tmp_path, count=count, turing=turing), said.append, silent)
    assert not said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("known", [("BCC", "MEL"), ("MEL",)])
def test_an_encoder_of_other_conditions_is_refused_before_anything_is_read(
    tmp_path: Path, known: tuple[str, ...]
) -> None:
    uri = str(tmp_path / "encoder")
    _encoder(known).save(uri)
    given = order(tmp_path, encoder=uri)
    Path(given.real).with_name("0.png").unlink()
    with pytest.raises(UserError) as caught:
        evaluating.evaluate(given, silent, silent)
    lacking = "NEV" if "BCC" in known else "BCC, NEV"
    assert str(caught.value) == (
        f"{uri}: an encoder that tells {', '.join(known)} apart, and does not know {lacking}; name one that does, or "
        "leave --encoder out to learn one"
    )


def test_an_encoder_may_know_more_conditions_in_any_order(tmp_path: Path) -> None:
    uri = str(tmp_path / "encoder")
    _encoder(("NEV", "MEL", "BCC")).save(uri)
    told = evaluating.evaluate(order(tmp_path, encoder=uri, turing=None), silent, silent)
    assert told["recognised"]["chance"] == 1 / 3


def _encoder(conditions: tuple[str, ...]) -> Encoder:
    network = Network(len(conditions))
    width = network.fault.in_features
    return Encoder(network, torch.zeros(width), torch.eye(width), conditions, {})


def test_a_photo_on_both_sides_under_two_names_is_refused_before_anything_is_learnt(tmp_path: Path) -> None:
    given = order(tmp_path)
    _, held = pairs.split(pairs.read(given.real), 0.25, 0)
    one = Path(held.photos[0].uri)
    other = next(path for path in sorted(one.parent.glob("*.png")) if str(path) not in {p.uri for p in held.photos})
    other.write_bytes(one.read_bytes())
    said: list[str] = []
    with pytest.raises(UserError, match=rf"{one.name} is held out and .*{other.name} to learn from, but both are"):
        evaluating.evaluate(given, said.append, silent)
    assert not said
    assert not (tmp_path / "out").exists()


def test_the_report_stands_whatever_becomes_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise MemoryError

    monkeypatch.setattr(evaluating.turing, "page", broken)
    with pytest.raises(MemoryError):
        evaluating.evaluate(order(tmp_path), silent, silent)
    assert (tmp_path / "out" / evaluating.FIGURES).exists()
    assert (tmp_path / "out" / evaluating.REPORT).exists()


def test_what_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="corpus"):
        evaluating.evaluate(order(tmp_path, corpus=str(tmp_path)), silent, silent)
    (tmp_path / "bad").write_bytes(b"none")
    with pytest.raises(UserError, match="not a safetensors file"):
        evaluating.evaluate(order(tmp_path, weights=str(tmp_path / "bad")), silent, silent)
    bad = order(tmp_path)
    change_row(bad.real, 0, x1="999")
    with pytest.raises(UserError, match=r"0\.png"):
        evaluating.evaluate(bad, silent, silent)
