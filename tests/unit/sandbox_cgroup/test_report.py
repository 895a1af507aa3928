"""What `doctor` prints."""

from __future__ import annotations

from sandbox.probe import Layer, report


def test_a_missing_layer_is_told_with_its_remedy() -> None:
    text = report([Layer("seccomp", True, "works"), Layer("landlock", False, "no such call", "Boot with landlock.")])
    assert text == (
        "ok       seccomp   works\n"
        "MISSING  landlock  no such call\n"
        "                   -> Boot with landlock.\n"
        "1 of 2 layers missing."
    )


def test_the_same_remedy_is_told_once() -> None:
    layers = [Layer("a", False, "no", "Do this."), Layer("b", False, "no", "Do this.")]
    assert report(layers).count("Do this.") == 1


def test_what_a_sandbox_can_do_without_is_not_called_missing() -> None:
    text = report([Layer("yama", False, "not in this kernel", needed=False)])
    assert "MISSING" not in text
    assert text.endswith("Every layer that is needed works here.")
