"""`python -m bench gpu` where there is no accelerator: its small shapes, a whole part of it."""

from bench import gpu


def test_a_part_of_the_accelerators_benchmark_runs_small_on_a_processor(monkeypatch):
    monkeypatch.setattr(gpu, "SWEPT", [problem for problem in gpu.SWEPT if problem.work is gpu.kmeans])
    report = []
    gpu.swept_problems(report)
    names, _, row = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in report[-1].splitlines()
    )
    cells = dict(zip(names, row, strict=True))
    assert cells["sweeps"] == str(gpu.SWEEPS)
    # the least time of a sweep, counted from its shapes, is a part of the measured one
    assert 0 < float(cells["of the roofline"].removesuffix(" %")) < 100
    assert float(cells["objective, float32 to float64"]) < 1e-6
