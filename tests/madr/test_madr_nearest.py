"""The nearest of many points, found by bounds, against float64 brute force."""

import pytest
import torch

from madr_plugin.reals import nearest


@pytest.fixture
def points():
    """[3000, 192] with falling variances as principal components have them, queries near some of them and far away, classes of both."""
    random = torch.Generator().manual_seed(0)
    spread_D = torch.arange(1, 193).pow(-0.5)
    points_nD = torch.randn([3000, 192], generator=random) * spread_D + 3
    near_BD = points_nD[:40] + 0.3 * torch.randn([40, 192], generator=random) * spread_D
    queries_BD = torch.cat([near_BD, torch.randn([20, 192], generator=random) * spread_D + 3, points_nD[:4] + 100])
    return points_nD, queries_BD, torch.randint(-1, 4, [3000], generator=random), torch.randint(0, 4, [64], generator=random)


def brute(points_nD, queries_BD, label_n=None, class_B=None):
    squared_Bn = (queries_BD[:, None].double() - points_nD.double()).square().sum(2)
    if class_B is not None:
        squared_Bn[(label_n >= 0) & (label_n != class_B[:, None])] = float("inf")
    return squared_Bn.min(1)


@pytest.mark.parametrize("with_classes", [False, True])
def test_equals_brute_force(points, monkeypatch, with_classes):
    points_nD, queries_BD, label_n, class_B = points
    class_B = class_B if with_classes else None
    found = nearest.NearestPoint(points_nD, label_n)
    monkeypatch.setattr(nearest, "MOST_MEASURED", 1 / 8)  # these queries are far from all points
    monkeypatch.setattr(found, "_by_all", lambda *_: pytest.fail("the bounds let too many pass"))
    point_B, squared_B = found.find(queries_BD, 15.0, class_B)
    expected = brute(points_nD, queries_BD, label_n, class_B)
    within_B = expected.values.sqrt() <= 15
    assert within_B.sum() == 60
    assert torch.equal(point_B, torch.where(within_B, expected.indices, 0))
    torch.testing.assert_close(squared_B[within_B].double(), expected.values[within_B], rtol=1e-4, atol=1e-6)
    assert squared_B[~within_B].isinf().all()


def test_both_ways_find_the_same(points, monkeypatch):
    monkeypatch.setattr(nearest, "MOST_MEASURED", 1 / 8)
    points_nD, queries_BD, label_n, class_B = points
    found = nearest.NearestPoint(points_nD, label_n)
    for furthest in (0.5, 2.0, float("inf")):
        bounded, all_of_them = found.find(queries_BD, furthest, class_B), found._by_all(queries_BD, furthest, class_B)
        assert torch.equal(bounded[0], all_of_them[0]) and torch.equal(bounded[1], all_of_them[1])


def test_narrow_features_are_measured_to_all():
    points_nD = torch.randn([100, 12], generator=torch.Generator().manual_seed(0))
    found = nearest.NearestPoint(points_nD, torch.full([100], -1))
    assert not found.has_bounds
    assert found.find(points_nD[5:8] + 1e-3, 1.0)[0].tolist() == [5, 6, 7]


@pytest.mark.parametrize("width", [3, 192])
def test_nothing_is_found_where_there_is_nothing(width):
    points_nD = torch.randn([500, width], generator=torch.Generator().manual_seed(0))
    found = nearest.NearestPoint(points_nD, torch.zeros([500], dtype=torch.int64))
    queries_BD = points_nD[:3].clone()
    queries_BD[1, 0] = float("nan")
    point_B, squared_B = found.find(queries_BD, float("inf"), torch.tensor([0, 0, 7]))  # class 7 has no point
    assert point_B.tolist() == [0, 0, 0] and squared_B.tolist()[0] == 0 and squared_B[1:].isinf().all()


def test_of_copies_the_first_is_found():
    points_nD = torch.randn([300, 192], generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    found = nearest.NearestPoint(points_nD, torch.full([600], -1))
    assert found.find(points_nD[[310, 20]], 1.0)[0].tolist() == [10, 20]


def test_where_more_pass_than_pay_all_are_measured(monkeypatch):
    points_nD = torch.nn.functional.normalize(torch.randn([600, 192], generator=torch.Generator().manual_seed(0)))
    found, asked = nearest.NearestPoint(points_nD, torch.full([600], -1)), []
    by_all = found._by_all
    monkeypatch.setattr(found, "_by_all", lambda *given: asked.append(given) or by_all(*given))
    queries_BD = 1e-2 * points_nD[:8]  # near the centre, about as far from all
    assert torch.equal(found.find(queries_BD, float("inf"))[0], brute(points_nD, queries_BD).indices) and len(asked) == 1
