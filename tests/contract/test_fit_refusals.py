"""What fit refuses, on every database: by a clear error, before anything is written."""

from __future__ import annotations

import pytest

from pinnacle import ConfigError, Conflict, Dataset
from pinnacle.plugin import TrainingConfiguration
from tests.contract.documents import snapshot
from tests.contract.lines import XY, configure, create_points, fit, kept
from tests.contract.trainable import Line
from tests.models import shout

pytestmark = [pytest.mark.usefixtures("cache_dir"), pytest.mark.same_standalone]


def always(predictions, targets):
    return 1.0


REFUSED = {
    "no X": ({"X": None}, "fit needs X= "),
    "an X of nothing": ({"X": ()}, "X names no field"),
    "a field that is not there": ({"X": ("x", "z")}, "'z'"),
    "the fold as a field": ({"X": ("x", "_fold")}, "_fold says which rows"),
    "no select": ({"select": None}, r"select= \(the rows\)"),
    "a select that is none": ({"select": "points"}, "select|find"),
    "no configuration": ({"configuration": None}, "fit needs configuration="),
    "a dict for a configuration": ({"configuration": {"max_steps": 3}}, "fit needs configuration="),
    "a configuration for others": ({"configuration": TrainingConfiguration("training")}, "LineConfiguration, not"),
    "a set that is no dataset": ({"validation_sets": ["valid"]}, "Dataset"),
    "an unknown metric": ({"metrics": ["bleu"]}, "'exact_match', not 'bleu'"),
    "two metrics of one name": ({"metrics": [always, always]}, "two metrics are called 'always'"),
    "a transform that is none": ({"transform": "lower"}, "transform= is a function of a row"),
    "Ray": ({"on_ray": True}, "on_ray="),
    "a Ray cluster": ({"ray_address": "ray://there:10001"}, "ray_address="),
    "settings for Ray": ({"ray_configs": {"num_workers": 2}}, "ray_configs="),
}


def asked(backend, db, line=None, **options):
    """A fit with some options as they should be, and these."""
    options = {"X": XY, "select": backend.query("points"), "configuration": configure(), "db": db, **options}
    return (line or Line("line")).fit(**options)


@pytest.mark.anywhere
@pytest.mark.parametrize(("options", "told"), REFUSED.values(), ids=REFUSED)
def test_a_fit_that_cannot_work_is_refused_before_anything_is_written(backend, db, options, told):
    create_points(backend)
    before = snapshot(backend)
    with pytest.raises(ConfigError, match=told):
        asked(backend, db, **options)
    assert snapshot(backend) == before


SETS = {
    "two of one name": ([("valid", XY), ("valid", XY)], "two sets are called 'valid'"),
    "one called train": ([("train", XY)], "two sets are called 'train'"),
    "fewer fields": ([("valid", "x")], "name as many"),
    "a field that is not there": ([("valid", ("x", "z"))], "'z'"),
}


@pytest.mark.anywhere
@pytest.mark.parametrize(("sets", "told"), SETS.values(), ids=SETS)
def test_validation_sets_that_cannot_work_are_refused(backend, db, sets, told):
    create_points(backend)
    before = snapshot(backend)
    made = [Dataset(name, select=backend.query("points"), X=X) for name, X in sets]
    with pytest.raises(ConfigError, match=told):
        asked(backend, db, validation_sets=made)
    assert snapshot(backend) == before


@pytest.mark.anywhere
def test_one_set_and_one_metric_need_no_list(backend, db):
    create_points(backend)
    run = asked(backend, db, validation_sets=Dataset("valid", select=backend.query("points")), metrics="exact_match")
    assert set(run.metrics) == {"loss", "eval_valid_loss", "eval_valid_exact_match"}


@pytest.mark.anywhere
def test_a_model_that_cannot_be_trained_says_which_can(backend, db):
    create_points(backend)
    before = snapshot(backend)
    with pytest.raises(ConfigError, match=r"'shout' is a .*, which cannot be trained; LLM can"):
        asked(backend, db, shout)
    assert snapshot(backend) == before


@pytest.mark.anywhere
@pytest.mark.parametrize("db_given", [None, "sqlite://"])
def test_fit_needs_a_database(backend, db_given):
    create_points(backend)
    with pytest.raises(ConfigError, match="fit needs db=, what pinnacle"):
        asked(backend, db_given)


@pytest.mark.anywhere
def test_fit_takes_a_model_and_not_its_name(backend, db):
    create_points(backend)
    with pytest.raises(ConfigError, match="fit takes a model, not str"):
        db.fit("line", XY, select=backend.query("points"), configuration=configure())


def test_a_name_that_belongs_to_another_class_is_refused_before_training(backend, db):
    create_points(backend)
    db.add(shout)
    before = kept(db)
    with pytest.raises(Conflict, match="choose another identifier"):
        fit(backend, db, Line("shout"))
    assert kept(db) == before


def test_a_dataset_needs_a_query():
    with pytest.raises(ConfigError, match="needs select="):
        Dataset("valid")
