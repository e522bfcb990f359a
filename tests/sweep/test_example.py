"""The main job, made small: the whole of it, and its outcome."""

from examples import sweep_digits
from optfx import sweep


def test_sweep_digits(tmp_path, capsys):
    found = sweep_digits.main(steps=60, settings=12, one_by_one=3, out=tmp_path / "out", compile=False)
    assert found["test_accuracy"] > 0.9
    assert found["apart"] < 0.02  # against torch.optim, by validation accuracy
    result = sweep.load(tmp_path / "out" / "sweep_digits.pt")
    assert len(result) == 12
    assert (tmp_path / "out" / "sweep_digits.png").stat().st_size > 50_000
    shown = capsys.readouterr().out
    assert result.table(10) in shown
    assert f"all at once: {result.seconds:.1f} s, {result.compile_seconds:.1f} s of it waiting for compilers" in shown
    assert "measured on 3 of the settings" in shown
    assert f"for all 12: {found['speedup']:.1f} times as long" in shown


def test_sweep_digits_with_hardly_any_steps(tmp_path):
    sweep_digits.main(steps=2, settings=3, out=tmp_path, compile=False)
