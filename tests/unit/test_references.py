"""Loading runs no code from the database: what is imported, what is refused, what only this process has."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pinnacle import ComponentError, MissingPlugin, Model, Settings, UntrustedReference, model
from pinnacle.base.rows import Record
from pinnacle.catalog.catalog import Catalog
from pinnacle.catalog.references import Reference, Resolver
from tests.unit.catalog_store import MemoryStore

SHOP = """
from pinnacle import Model, model

@model
def price(text: str) -> int:
    return len(text)

def plain(text):
    raise AssertionError("a plain function was called")

class Outer:
    class Nested(Model):
        def predict_one(self, text: str) -> str:
            return text

def _upper(text: str) -> str:
    return text.upper()

upper = model(_upper, identifier="upper")
unnamed = model(lambda text: text, identifier="unnamed")

class NoComponent:
    def __init__(self, *args, **kwargs):
        raise AssertionError("a class that is no component was called")
"""


@pytest.fixture
def catalog(tmp_path):
    return Catalog(MemoryStore(), Settings(cache_dir=tmp_path / "cache"))


def start_in(folder, monkeypatch) -> None:
    """As a process that was started in ``folder``, which is on its path."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A user's module ``shop_of_test`` on this process's path."""
    (tmp_path / "shop_of_test.py").write_text(SHOP)
    start_in(tmp_path, monkeypatch)
    yield importlib.import_module("shop_of_test")
    sys.modules.pop("shop_of_test", None)


def edit(shop, old: str, new: str) -> None:
    """Change the module's file, as if it were edited, and forget the module."""
    path = Path(shop.__file__)
    path.write_text(path.read_text().replace(old, new) + "\n# edited\n")
    sys.modules.pop(shop.__name__)
    importlib.invalidate_caches()


def stored(catalog: Catalog, identifier: str) -> Record:
    record = catalog.store.get("model", identifier)
    assert record is not None
    return record


def forged(catalog: Catalog, reference: str, *, function: bool = True) -> None:
    """A record as someone would write it who can write to the database and nothing else."""
    if function:
        fields = {"function": {"@function": {"reference": reference, "digest": "0", "local": False}}}
        record = Record(
            kind="model", identifier="forged", version=0, type="FunctionModel", body={"fields": fields}, digest="0"
        )
    else:
        record = Record(
            kind="model", identifier="forged", version=0, type=reference, body={"fields": {}, "source": "0"}, digest="0"
        )
    catalog.store.save(record)


def test_a_modules_function_goes_by_its_import_reference(catalog, shop):
    catalog.add(shop.price)
    function = stored(catalog, "price").body["fields"]["function"]["@function"]
    assert (function["reference"], function["local"]) == ("shop_of_test:price", False)
    sys.modules.pop("shop_of_test")
    assert catalog.load("model", "price").predict("abc") == 3


def test_a_function_wrapped_under_another_name_is_found(catalog, shop):
    catalog.add(shop.upper)
    sys.modules.pop("shop_of_test")
    assert catalog.load("model", "upper").predict("a") == "A"


def test_a_nested_class_is_found(catalog, shop):
    catalog.add(shop.Outer.Nested("nested"))
    assert stored(catalog, "nested").type == "shop_of_test:Outer.Nested"
    sys.modules.pop("shop_of_test")
    assert catalog.load("model", "nested").predict("a") == "a"


def test_an_edited_function_is_never_loaded_under_the_old_version(catalog, shop):
    catalog.add(shop.price)
    edit(shop, "return len(text)", "return len(text) * 2")
    with pytest.raises(ComponentError, match=r"is not what this version was made from; run db\.add.*each listener"):
        catalog.load("model", "price")
    assert catalog.add(importlib.import_module("shop_of_test").price).version == 1
    assert catalog.load("model", "price").predict("abc") == 6
    with pytest.raises(ComponentError, match="is not what this version was made from"):
        catalog.load("model", "price", 0)


def test_an_edited_class_is_never_loaded_under_the_old_version(catalog, shop):
    catalog.add(shop.Outer.Nested("nested"))
    edit(shop, "            return text\n", "            return text * 2\n")
    with pytest.raises(ComponentError, match="is not what this version was made from"):
        catalog.load("model", "nested")


def test_an_edit_elsewhere_in_the_module_does_not_matter(catalog, shop):
    catalog.add(shop.price)
    edit(shop, "plain function", "very plain function")
    assert catalog.load("model", "price").predict("abc") == 3


def test_a_function_that_is_gone_says_so(catalog, shop):
    catalog.add(shop.price)
    edit(shop, "def price", "def cost")
    with pytest.raises(ComponentError, match="shop_of_test has no price"):
        catalog.load("model", "price")


@pytest.mark.parametrize("name", ["plain", "NoComponent", "Outer", "_upper"])
def test_what_is_no_component_is_neither_called_nor_loaded(catalog, shop, name):
    forged(catalog, f"shop_of_test:{name}")
    with pytest.raises(UntrustedReference, match="no pinnacle component"):
        catalog.load("model", "forged")


@pytest.mark.parametrize("name", ["plain", "NoComponent", "price", "Outer"])
def test_a_class_reference_must_be_a_component_class(catalog, shop, name):
    forged(catalog, f"shop_of_test:{name}", function=False)
    with pytest.raises(UntrustedReference, match="no pinnacle component"):
        catalog.load("model", "forged")


@pytest.mark.parametrize(
    "reference",
    ["os:system", "subprocess:Popen", "antigravity:fly", "this:s", "builtins:eval", "json:JSONDecoder.decode"],
)
@pytest.mark.parametrize("function", [True, False])
def test_the_standard_library_is_refused_before_it_is_imported(catalog, reference, function):
    forged(catalog, reference, function=function)
    with pytest.raises(UntrustedReference):
        catalog.load("model", "forged")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("reference", ["../evil:f", ".evil:f", "evil//x:f", ":f", "a b:f", "evil/x:f"])
def test_what_is_no_module_name_is_refused(catalog, reference):
    forged(catalog, reference)
    with pytest.raises(UntrustedReference, match="not an import reference"):
        catalog.load("model", "forged")


def test_a_module_off_the_path_says_where_to_start_from(catalog):
    forged(catalog, "nowhere_at_all.models:f")
    with pytest.raises(ComponentError, match="not on this process's path"):
        catalog.load("model", "forged")


@pytest.mark.parametrize("function", [True, False])
def test_trusted_modules_are_checked_before_any_import(tmp_path, monkeypatch, function):
    (tmp_path / "trap_of_test.py").write_text("raise AssertionError('imported')")
    start_in(tmp_path, monkeypatch)
    catalog = Catalog(MemoryStore(), Settings(trusted_modules=("shop_of_test",), cache_dir=tmp_path))
    forged(catalog, "trap_of_test:f", function=function)
    with pytest.raises(UntrustedReference, match="outside of trusted_modules"):
        catalog.load("model", "forged")


def test_trusted_modules_and_their_submodules_load(catalog, shop, tmp_path):
    catalog.add(shop.price)
    assert Catalog(catalog.store, Settings(trusted_modules=("shop_of_test",), cache_dir=tmp_path)).load(
        "model", "price"
    )
    with pytest.raises(UntrustedReference):
        Catalog(catalog.store, Settings(trusted_modules=("shop_of",), cache_dir=tmp_path)).load("model", "price")
    with pytest.raises(UntrustedReference):
        Catalog(catalog.store, Settings(trusted_modules=(), cache_dir=tmp_path)).load("model", "price")


def test_lambdas_and_locals_load_in_the_process_that_added_them(catalog, shop):
    class Local(Model):
        def predict_one(self, text: str) -> str:
            return text + text

    catalog.add(Local("local"))
    catalog.add(shop.unnamed)
    assert catalog.load("model", "local").predict("a") == "aa"
    assert catalog.load("model", "unnamed").predict("a") == "a"


def test_code_of_another_process_says_what_to_do(catalog):
    record = Record(
        kind="model",
        identifier="theirs",
        version=0,
        type="app:f.<locals>.Local",
        body={"fields": {}, "source": "0", "local": True},
        digest="0",
    )
    catalog.store.save(record)
    with pytest.raises(
        ComponentError, match=r"lives only in the process that added it; move it to a module.*allow_pickle"
    ):
        catalog.load("model", "theirs")


CALLS = """
from pinnacle import Model, model

def call(llm, prompt, **kwargs):
    return prompt + "!"

def setup(api_key):
    return api_key

@model
def wrapped(llm, prompt):
    return prompt + "!"
"""
NAMED = "\nsaying = Model.from_function('saying', fn=call, setup_fn=setup, prompt_func=call)\n"


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A user's module ``calls_of_test`` of functions that no component of it is made of."""
    (tmp_path / "calls_of_test.py").write_text(CALLS)
    start_in(tmp_path, monkeypatch)
    yield importlib.import_module("calls_of_test")
    sys.modules.pop("calls_of_test", None)


def in_another_process(monkeypatch) -> None:
    """Forget the code that only this process has within its reach."""
    monkeypatch.setattr("pinnacle.catalog.references._live", {})


@pytest.mark.parametrize("field", ["fn", "setup_fn", "prompt_func"])
def test_a_modules_function_that_no_component_leads_to_says_how_to_reach_it(catalog, calls, monkeypatch, field):
    functions = {"fn": calls.wrapped, field: calls.setup if field == "setup_fn" else calls.call}
    catalog.add(Model.from_function("saying", **functions))
    catalog.load("model", "saying")
    in_another_process(monkeypatch)
    with pytest.raises(ComponentError, match=r"reached through no component of calls_of_test") as caught:
        catalog.load("model", "saying")
    told = str(caught.value)
    assert "module-level variable of calls_of_test (name = Model.from_function(...))" in told
    assert "decorate the function with @model" in told
    assert "allow_pickle=True both to add and to load" in told
    assert "lives only in the process" not in told


def test_a_model_that_is_a_variable_of_its_functions_module_loads(catalog, calls, monkeypatch):
    edit(calls, "\n@model", f"{NAMED}\n@model")
    named = importlib.import_module("calls_of_test")
    catalog.add(named.saying)
    in_another_process(monkeypatch)
    assert catalog.load("model", "saying").fn is named.call


def test_a_decorated_function_loads_as_part_of_a_model(catalog, calls, monkeypatch):
    catalog.add(Model.from_function("saying", fn=calls.wrapped))
    in_another_process(monkeypatch)
    assert catalog.load("model", "saying").predict("a") == "a!"


@pytest.mark.parametrize("is_lambda", [True, False])
def test_a_function_without_a_name_in_its_module_lives_in_one_process(catalog, monkeypatch, is_lambda):
    def call(llm, prompt):
        return prompt

    catalog.add(Model.from_function("saying", fn=(lambda llm, prompt: prompt) if is_lambda else call))
    in_another_process(monkeypatch)
    with pytest.raises(ComponentError, match="lives only in the process that added it; move it to a module"):
        catalog.load("model", "saying")


def test_a_plug_in_that_is_missing_is_named(catalog):
    body = {"fields": {}, "distribution": "pinnacle-whisper"}
    catalog.store.save(Record(kind="model", identifier="ears", version=0, type="Whisper", body=body, digest="0"))
    with pytest.raises(MissingPlugin, match="pip install 'pinnacle-whisper'"):
        catalog.load("model", "ears")


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """An installed plug-in distribution with one model, found by its entry point."""
    package = tmp_path / "pinnacle_echo"
    package.mkdir()
    (package / "__init__.py").write_text("from pinnacle_echo.model import Echo")
    (package / "model.py").write_text(
        "from pinnacle import Model\n\n"
        "class Echo(Model):\n    def predict_one(self, text: str) -> str:\n        return text\n"
    )
    info = tmp_path / "pinnacle_echo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pinnacle-echo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pinnacle.models]\nEcho = pinnacle_echo:Echo\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield importlib.import_module("pinnacle_echo")
    for name in ("pinnacle_echo", "pinnacle_echo.model"):
        sys.modules.pop(name, None)


def test_a_plug_ins_class_goes_by_its_entry_point(catalog, plugin):
    catalog.add(plugin.Echo("echo"))
    record = stored(catalog, "echo")
    assert (record.type, record.body["distribution"]) == ("Echo", "pinnacle-echo")
    assert isinstance(catalog.load("model", "echo"), plugin.Echo)
    none_trusted = Catalog(catalog.store, Settings(trusted_modules=()))
    assert none_trusted.load("model", "echo").predict("a") == "a"


def test_a_shared_reference_never_runs_a_modules_getattr(tmp_path, monkeypatch):
    (tmp_path / "lazy_of_test.py").write_text("def __getattr__(name):\n    raise AssertionError(name)\n")
    start_in(tmp_path, monkeypatch)
    with pytest.raises(ComponentError, match="lazy_of_test has no f"):
        Resolver(None).function(Reference("lazy_of_test:f", "0"))


SCRIPT = """
import pickle, sys
from pinnacle import model, Model, Settings
from pinnacle.catalog.catalog import Catalog
from tests.unit.catalog_store import MemoryStore

@model
def scripted(text: str) -> str:
    return text + SUFFIX

SUFFIX = "?"

class Scripted(Model):
    def predict_one(self, text: str) -> str:
        return text + SUFFIX

catalog = Catalog(MemoryStore(), Settings())
allow = sys.argv[1] == "pickle"
for each in (scripted, Scripted("by_class"), model(lambda x: x * 2, identifier="twice", output_type=str)):
    catalog.add(each, allow_pickle=allow)
assert catalog.load("model", "scripted", allow_pickle=allow).predict("a") == "a?"
assert catalog.load("model", "by_class", allow_pickle=allow).predict("a") == "a?"
catalog.store.lock = None
pickle.dump((catalog.store.records, catalog.store.artifacts), open(sys.argv[2], "wb"))
"""


def from_a_script(tmp_path: Path, how: str) -> Catalog:
    """The catalog that another process's ``__main__`` has filled."""
    script, result = tmp_path / "script.py", tmp_path / "result"
    script.write_text(textwrap.dedent(SCRIPT))
    subprocess.run(
        [sys.executable, script, how, result], check=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=600
    )
    store = MemoryStore()
    store.records, store.artifacts = pickle.loads(result.read_bytes())
    return Catalog(store, Settings(cache_dir=tmp_path))


@pytest.mark.parametrize("identifier", ["scripted", "by_class", "twice"])
def test_a_scripts_own_code_does_not_load_elsewhere(tmp_path, identifier):
    catalog = from_a_script(tmp_path, "plain")
    for allow_pickle in (False, True):
        with pytest.raises(ComponentError, match=r"made from __main__:.*lives only in the process"):
            catalog.load("model", identifier, allow_pickle=allow_pickle)


def test_pickles_load_where_both_sides_allowed_them(tmp_path):
    catalog = from_a_script(tmp_path, "pickle")
    for identifier, output in (("scripted", "a?"), ("by_class", "a?"), ("twice", "aa")):
        with pytest.raises(ComponentError, match="pass allow_pickle=True to load"):
            catalog.load("model", identifier)
        assert catalog.load("model", identifier, allow_pickle=True).predict("a") == output
    trusting = Catalog(catalog.store, Settings(trusted_modules=("__main__",), cache_dir=tmp_path))
    with pytest.raises(ComponentError, match="never loaded while trusted_modules is set"):
        trusting.load("model", "twice", allow_pickle=True)


def test_pickled_fields_need_permission_too(catalog):
    class Holder(Model):
        def predict_one(self, text: str) -> str:
            return text

    holder = Holder("holder", output_type=str)
    holder.batch_size = slice(1, 2)  # a value JSON has no word for
    catalog.add(holder, allow_pickle=True)
    with pytest.raises(ComponentError, match="pass allow_pickle=True to load"):
        catalog.load("model", "holder")


def test_allowing_pickles_later_stores_them_once(catalog):
    twice = model(lambda x: x * 2, identifier="twice", output_type=str)
    assert catalog.add(twice).version == 0
    assert catalog.add(twice, allow_pickle=True).version == 1
    assert catalog.add(twice, allow_pickle=True).version == 1
    assert catalog.add(twice).version == 1


def test_pickling_without_cloudpickle_names_the_package(catalog, monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(MissingPlugin, match=r"pip install 'pinnacle-ai\[pickle\]'"):
        catalog.add(model(lambda x: x, identifier="f", output_type=str), allow_pickle=True)


def test_a_pickle_of_another_python_is_refused(tmp_path):
    catalog = from_a_script(tmp_path, "pickle")
    stored(catalog, "twice").body["python"] = "3.1"
    with pytest.raises(ComponentError, match=r"pickled by Python 3\.1 "):
        catalog.load("model", "twice", allow_pickle=True)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder on the path, as of installed packages, and beside it the one that the process was started in."""
    (tmp_path / "app").mkdir()
    (tmp_path / "lib").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    start_in(tmp_path / "app", monkeypatch)
    return tmp_path / "lib"


def trap(file: Path) -> Path:
    """A module that would tell of its import; the file that it would leave."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mark = file.with_suffix(".imported")
    file.write_text(f"open({str(mark)!r}, 'w').close()\n{SHOP}")
    importlib.invalidate_caches()
    return mark


@pytest.mark.parametrize("function", [True, False])
@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("lib/installed_of_test.py", "installed_of_test"),
        ("lib/package_of_test/__init__.py", "package_of_test"),
        ("lib/names_of_test/models.py", "names_of_test.models"),
        ("app/.venv/lib/python3/site-packages/inside_of_test.py", "inside_of_test"),
        ("app/setup.py", "setup"),
        ("app/conftest.py", "conftest"),
        ("app/pack_of_test/__main__.py", "pack_of_test.__main__"),
        ("app/setup/models.py", "setup.models"),
    ],
)
def test_what_is_not_the_programs_own_is_refused_before_it_is_imported(
    catalog, elsewhere, monkeypatch, file, module, function
):
    mark = trap(elsewhere.parent / file)
    monkeypatch.delitem(sys.modules, "conftest", raising=False)
    monkeypatch.syspath_prepend(str(elsewhere.parent / "app" / ".venv" / "lib" / "python3" / "site-packages"))
    forged(catalog, f"{module}:price", function=function)
    with pytest.raises(UntrustedReference, match=r"PINNACLE_TRUSTED_MODULES|is run and not imported"):
        catalog.load("model", "forged")
    assert not mark.exists()


def test_a_package_outside_is_not_run_for_a_module_below_it(catalog, elsewhere):
    mark = trap(elsewhere / "outer_of_test" / "__init__.py")
    trap(elsewhere / "outer_of_test" / "models.py")
    forged(catalog, "outer_of_test.models:price")
    with pytest.raises(UntrustedReference, match=r"'outer_of_test' from .*pinnacle --import outer_of_test\.models"):
        catalog.load("model", "forged")
    assert not mark.exists()


def test_a_link_that_leads_out_of_the_folder_is_refused(catalog, elsewhere):
    mark = trap(elsewhere / "outside_of_test.py")
    (elsewhere.parent / "app" / "linked_of_test.py").symlink_to(elsewhere / "outside_of_test.py")
    forged(catalog, "linked_of_test:price")
    with pytest.raises(UntrustedReference, match="PINNACLE_TRUSTED_MODULES"):
        catalog.load("model", "forged")
    assert not mark.exists()


def test_pinnacles_own_programs_are_not_run(catalog, monkeypatch):
    monkeypatch.delitem(sys.modules, "pinnacle.testing.__main__", raising=False)
    forged(catalog, "pinnacle.testing.__main__:Thing", function=False)
    with pytest.raises(UntrustedReference, match="is run and not imported"):
        catalog.load("model", "forged")
    assert "pinnacle.testing.__main__" not in sys.modules


def test_what_the_process_has_imported_or_trusts_loads_from_anywhere(catalog, elsewhere, tmp_path):
    trap(elsewhere / "installed_of_test.py")
    module = importlib.import_module("installed_of_test")
    catalog.add(module.price)
    assert catalog.load("model", "price").predict("abc") == 3
    sys.modules.pop("installed_of_test")
    with pytest.raises(UntrustedReference, match="is not in"):
        catalog.load("model", "price")
    trusting = Catalog(catalog.store, Settings(trusted_modules=("installed_of_test",), cache_dir=tmp_path))
    assert trusting.load("model", "price").predict("abc") == 3
    sys.modules.pop("installed_of_test")


@pytest.mark.parametrize("package", ["own_of_test", "own_of_test.within.more"])
def test_a_namespace_package_of_the_programs_own_loads(catalog, elsewhere, package):
    trap(elsewhere.parent.joinpath("app", *package.split("."), "models.py"))
    catalog.add(importlib.import_module(f"{package}.models").price)
    for name in [name for name in sys.modules if name.startswith("own_of_test")]:
        sys.modules.pop(name)
    assert catalog.load("model", "price").predict("abc") == 3


def test_a_script_finds_the_models_beside_it(tmp_path):
    """Though it was started elsewhere."""
    trap(tmp_path / "app" / "shop_of_test.py")
    script = tmp_path / "app" / "run.py"
    script.write_text(
        "import sys\nfrom pinnacle import pinnacle\n"
        "db = pinnacle(sys.argv[1])\n"
        "if sys.argv[2] == 'add':\n    import shop_of_test\n    db.add(shop_of_test.price)\n"
        "else:\n    print(db.load('model', 'price').predict('abc'))\n"
    )
    for verb in ("add", "load"):
        done = subprocess.run(
            [sys.executable, script, f"sqlite:///{tmp_path}/models.db", verb],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.stdout == "3\n", done.stderr
