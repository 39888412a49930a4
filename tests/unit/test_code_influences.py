"""What else of a module counts as a model's code: all that may change what it uses, and only that."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import re
import sys

import pytest

COUNT = itertools.count()
HEAD = "import functools, sys\nfrom dataclasses import dataclass\nfrom pinnacle import Model, model, pinnacle\n"
USING = r"""
@model
def f(text: str) -> str:
    return str(\1)
"""


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """The digest of the model `f`, or of the class `C`, of a module."""

    def digest(text: str) -> str:
        folder = tmp_path / str(next(COUNT))
        folder.mkdir()
        (folder / "influences_of_test.py").write_text(HEAD + text)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(folder))
            patch.delitem(sys.modules, "influences_of_test", raising=False)
            module = importlib.import_module("influences_of_test")
            return module.C.class_source.digest if hasattr(module, "C") else module.f.source.digest

    return digest


@pytest.fixture(autouse=True)
def forgotten():
    yield
    sys.modules.pop("influences_of_test", None)


def cases(text: str) -> dict[str, tuple[str, str]]:
    """By kind what is edited in a module, and the module."""
    found = {}
    for case in text.split("\n## ")[1:]:
        title, _, module = case.partition("\n")
        kind, _, edited = title.partition(": ")
        found[kind] = edited, re.sub(r"(?m)^f uses (.*)$", USING, module) + "\n"
    return found


SEEN = cases("""
## a cached function: 1
@model
@functools.cache
def f(text: str) -> str:
    return text + '1'
## a cached function by call: '1'
def g(text: str) -> str:
    return text + '1'
f = model(functools.lru_cache(3)(g), identifier='f')
## a partial of a cached one: '1'
@functools.cache
def g(text: str, n) -> str:
    return text + '1'
f = model(functools.partial(g, n=2), identifier='f')
## a partial of a partial: n=2
def g(text: str, n, m) -> str:
    return text
f = model(functools.partial(functools.partial(g, n=2), m=1), identifier='f')
## a wrapper by call: '1'
def w(function):
    @functools.wraps(function)
    def inner(text: str) -> str:
        return function(text) + '1'
    return inner
def g(text: str) -> str:
    return text
f = model(w(g), identifier='f')
## an object that holds it: '1'
class Memo:
    def __init__(self, function):
        self.function = function
    def __call__(self, text: str) -> str:
        return self.function(text)
def g(text: str) -> str:
    return text + '1'
f = model(Memo(g), identifier='f')
## a closure over a cached one: '1'
def make():
    @functools.cache
    def g(text):
        return text + '1'
    @model
    def f(text: str) -> str:
        return g(text)
    return f
f = make()
## a flag: True
FAST = True
if FAST:
    def h(text):
        return 1
else:
    def h(text):
        return 2

f uses h(text)
## a flag of elif: == 1
N = 3
if N == 0:
    X = 0
elif N == 1:
    X = 1
else:
    X = 2

f uses X
## a while: < 3
N = 0
while N < 3:
    N += 1

f uses N
## a while with a break: > 3
n = 0
while True:
    n = n + 1
    if n > 3:
        break
    X = n

f uses X
## a try: int('1')
try:
    int('1')
    X = 1
except ValueError:
    X = 2

f uses X
## a match: 'a'
MODE = 1
match MODE:
    case 'a':
        X = 1
    case _:
        X = 2

f uses X
## a registering decorator: '1'
TABLE = {}
def register(name):
    def keep(function):
        TABLE[name] = function
        return function
    return keep
@register('x')
def handler(text):
    return text + '1'

f uses TABLE['x'](text)
## a registering method: '1'
class Table:
    def __init__(self):
        self.table = {}
    def register(self, function):
        self.table[1] = function
        return function
TABLE = Table()
@TABLE.register
def handler(text):
    return text + '1'

f uses TABLE.table
## singledispatch: '1'
@functools.singledispatch
def show(x):
    return x
@show.register
def _(x: int):
    return '1'

f uses show(1)
## singledispatch by call: '1'
@functools.singledispatch
def show(x):
    return x
def of_int(x):
    return '1'
show.register(int, of_int)

f uses show(1)
## __init_subclass__: '1'
TABLE = {}
class Base:
    def __init_subclass__(cls):
        TABLE[cls.__name__] = cls
class Sub(Base):
    def run():
        return '1'

f uses TABLE['Sub'].run()
## __init_subclass__ into the class: '1'
class Base:
    all = []
    def __init_subclass__(cls):
        Base.all.append(cls)
class Sub(Base):
    x = '1'

f uses Base.all
## __subclasses__: '1'
class Base:
    pass
class Sub(Base):
    x = '1'

f uses Base.__subclasses__()
## a metaclass: '1'
TABLE = []
class Meta(type):
    def __init__(cls, *rest):
        TABLE.append(cls)
class Sub(metaclass=Meta):
    x = '1'

f uses TABLE
## append to list(): '1'
L = list()
L.append('1')

f uses L
## update of dict(): x=1
D = dict()
D.update(x=1)

f uses D
## setdefault: '1'
import collections
D = collections.defaultdict(list)
D['x'].append('1')

f uses D
## an item: '1'
D = dict()
D['x'] = '1'

f uses D
## setattr: '1'
class P:
    pass
setattr(P, 'x', '1')

f uses P.x
## an attribute: '1'
class P:
    pass
P.x = '1'

f uses P.x
## an alias: '1'
L = []
M = L
M.append('1')

f uses L
## a bound method: '1'
L = []
add = L.append
add('1')

f uses L
## a loop: '1'
D = dict()
for n in ['1']:
    D[n] = n

f uses D
## a comprehension: '1'
L = list()
[L.append(x) for x in ['1']]

f uses L
## a function that is called: '1'
D = dict()
def fill():
    D['x'] = '1'
fill()

f uses D
## a function through another: '1'
D = dict()
def put(value):
    D['x'] = value
def fill():
    put('1')
fill()

f uses D
## a global statement: '1'
X = None
def load():
    global X
    X = '1'
load()

f uses X
## a function that is given: '1'
D = dict()
def put(x):
    D[x] = '1'
list(map(put, [1]))

f uses D
## globals: '1'
X = None
globals()['X'] = '1'

f uses X
## the module by its name: '1'
X = None
setattr(sys.modules[__name__], 'X', '1')

f uses X
## exec: X = 1
X = None
exec('X = 1')

f uses X
## reading by globals: '1'
X = '1'

f uses globals()['X']
## reading by getattr: '1'
X = '1'

f uses getattr(sys.modules[__name__], 'X')
## a walrus: '1'
if (X := '1'):
    pass

f uses X
## a deletion: '1'
D = {'1': 1, '2': 2}
del D['1']

f uses D
## another module's attribute: '1'
functools.extra = '1'

f uses functools.extra
## a seed: seed(1)
import random
random.seed(1)

f uses random.random()
## a docstring: words
def h():
    'words'

f uses h.__doc__
## its own docstring: words
@model
def f(text: str) -> str:
    'words'
    return f.__doc__
## a docstring by inspect: words
import inspect
def h():
    'words'

f uses inspect.getdoc(h)
## a module's docstring: words
__doc__ = 'words'

f uses __doc__
## a mixin: '1'
class Mixin:
    def clean(self, text):
        return '1'
class C(Mixin, Model):
    def predict_one(self, text: str) -> str:
        return self.clean(text)
## a class attribute set later: '1'
class C(Model):
    def predict_one(self, text: str) -> str:
        return self.x
C.x = '1'
## a cached method: '1'
class C(Model):
    @functools.lru_cache
    def clean(self, text):
        return '1'
    def predict_one(self, text: str) -> str:
        return self.clean(text)
## a nested class: '1'
class C(Model):
    class Inner:
        x = '1'
    def predict_one(self, text: str) -> str:
        return self.Inner.x
## a class decorator: '1'
def more(cls):
    cls.x = '1'
    return cls
@more
class C(Model):
    def predict_one(self, text: str) -> str:
        return self.x
## a class's docstring: words
class C(Model):
    'words'
    def predict_one(self, text: str) -> str:
        return self.__doc__
## a docstring that a library is handed: words
from pydantic import validate_call
@validate_call
def h():
    'words'

f uses h
## a class attribute set by setattr: '1'
class C(Model):
    def predict_one(self, text: str) -> str:
        return self.x
setattr(C, 'x', '1')
## a method put in later: '1'
def more(self, text):
    return '1'
class C(Model):
    def predict_one(self, text: str) -> str:
        return self.more(text)
C.more = more
## a patched class in a function: '1'
class P:
    pass
def patch(cls):
    cls.x = '1'
patch(P)

f uses P.x
## an imported object: '1'
from string import ascii_lowercase
import collections
D = collections.OrderedDict()
v = D.setdefault('1', 1)

f uses D
## a function that hands its parameter on: '1'
L = []
def put(to):
    list.append(to, '1')
put(L)

f uses L
## a function that keeps what it is given: '1'
L = []
KEPT = []
def keep(it):
    KEPT.append(it)
keep(L)
KEPT[0].append('1')

f uses L
## a default that is kept: '1'
def h(x, kept=[]):
    kept.append(x)
    return kept
h('1')

f uses h(2)
## a generator in a class body: '1'
class P:
    words = ['1' for _ in range(2)]

f uses P.words
## a partial in a table: '1'
def g(n, text):
    return text + '1'
TABLE = {'a': functools.partial(g, 1)}

f uses TABLE['a']('b')
## a lambda in a dict: '1'
TABLE = {}
TABLE['x'] = lambda text: text + '1'

f uses TABLE['x']('b')
## a context manager: '1'
import contextlib
L = []
@contextlib.contextmanager
def filling():
    L.append('1')
    yield
with filling():
    pass

f uses L
## an object whose method fills: '1'
L = []
class Filler:
    def fill(self):
        L.append('1')
Filler().fill()

f uses L
## an object that fills when called: '1'
L = []
class Filler:
    def __call__(self):
        L.append('1')
fill = Filler()
fill()

f uses L
## a property: '1'
class P:
    @property
    def x(self):
        return '1'

f uses P().x
## an augmented assignment: '1'
L = []
L += ['1']

f uses L
## an item of a nested list: '1'
L = [[]]
L[0].append('1')

f uses L
## unpacking: '1'
a, (b, *c) = 1, (2, 3, '1')

f uses c
## a for with an else: '1'
for n in [1]:
    X = n
else:
    X = '1'

f uses X
## a finally: '1'
try:
    X = 0
finally:
    X = '1'

f uses X
## a with: '1'
import contextlib
with contextlib.nullcontext('1') as X:
    pass

f uses X
## a type by call: '1'
P = type('P', (), {'x': '1'})

f uses P.x
## an enum: '1'
import enum
class E(enum.Enum):
    a = '1'

f uses E.a.value
## a default of a helper: '1'
def h(x='1'):
    return x

f uses h()
## a global that is set in a nested function: '1'
X = None
def outer():
    def inner():
        global X
        X = '1'
    inner()
outer()

f uses X
## a decorator that adds: '1'
def add(function):
    function.extra = '1'
    return function
@add
def h():
    return h.extra

f uses h()
## an attribute of a function: '1'
def h():
    return h.extra
h.extra = '1'

f uses h()
## a recursive pair: '1'
def a(n):
    return b(n - 1) if n else '1'
def b(n):
    return a(n)

f uses a(1)
## a module's __getattr__ like table: '1'
import types
NS = types.SimpleNamespace()
NS.__dict__.update(x='1')

f uses NS.x
## vars: '1'
class P:
    pass
p = P()
vars(p)['x'] = '1'

f uses p.x
## update wrapper: '1'
def g(text):
    return text + '1'
def h(text):
    return text
h.__wrapped__ = g

f uses h.__wrapped__('a')
## two names of one list: '1'
A = B = []
A.append('1')

f uses B
## the context of a library: 28
import decimal
from decimal import Decimal
decimal.getcontext().prec = 28

f uses Decimal(1) / 3
## the environment: '1'
import os
from os import environ
environ['OF_TESTS'] = '1'

f uses os.environ['OF_TESTS']
## a thread: '1'
import threading
L = []
def fill():
    L.append('1')
filling = threading.Thread(target=fill)
filling.start()
filling.join()

f uses L
## a descriptor: '1'
L = []
class Noted:
    def __set_name__(self, owner, name):
        L.append('1')
class P:
    x = Noted()

f uses L
""")

UNSEEN = cases("""
## another function: '1'
L = list()
L.append(1)
def other(text):
    return '1'

f uses L
## another cached function: '1'
@functools.cache
def h(x):
    return x
@functools.cache
def other(text):
    return '1'

f uses h(1)
## another constant: '1'
L = list()
OTHER = '1'

f uses L
## another list: '1'
L = list()
M = list()
M.append('1')

f uses L
## another model: '1'
LIMIT = 3
@model
def g(text: str) -> str:
    return text[:LIMIT] + '1'

f uses LIMIT
## another class of models: '1'
class Base(Model):
    pass
class D(Base):
    x = '1'
class C(Base):
    def predict_one(self, text: str) -> str:
        return text
## what a model is used for: '1'
L = list()

f uses L
print(f('1'), f.predict('1'))
## what a function is called for: '1'
def h(text):
    return text

f uses h(text)
def main():
    print(h('1'), f.predict('1'))
if __name__ == 'nothing':
    main()
## what is stored: '1'
L = list()

f uses L
def main():
    db = pinnacle('mongomock://' + '1')
    db.add(f)
    f.predict(X='text', db=db)
## what is printed: '1'
LIMIT = 3
print(LIMIT, '1')

f uses LIMIT
## a pattern: '1'
import re
P = re.compile('a')
OTHER = re.compile('1')

f uses re.sub(P, '', text)
## a log's level: 'INFO'
import logging
log = logging.getLogger(__name__)
logging.basicConfig(level='INFO')

f uses log
## a docstring that nobody reads: words
def h():
    'words'

f uses h()
## a docstring of a cached function: words
@functools.cache
def h():
    'words'

f uses h()
## a class's docstring: words
class C(Model):
    'words'
    def predict_one(self, text: str) -> str:
        return text
## a dataclass's docstring: words
@dataclass
class P:
    'words'
    x: int = 1

f uses P()
## another handler's table: '1'
TABLE = {}
OTHER = {}
@functools.partial(OTHER.setdefault, 1)
def handler(text):
    return '1'

f uses TABLE
## another path: '1'
from pathlib import Path
ROOT = Path(__file__).parent
OTHER = str(ROOT / '1')

f uses ROOT
## what a script reads: '1'
class Doc:
    table = 'docs'
def select(what):
    return what.table
def main(db):
    print(select(Doc), '1')
    for row in db.execute(select(Doc)):
        print(row)

f uses Doc.table
## what an app serves: '1'
class App:
    def route(self, path):
        return lambda function: function
app = App()
def h(text):
    return text
@app.route('/x')
def page(text):
    return h(text) + '1'

f uses h(text)
## a model made of another: '1'
def h(text, n):
    return text
g = model(functools.partial(h, n='1'), identifier='g')

f uses h(text, 1)
## a check: '1'
def h(text):
    return text
assert h('1') == '1'

f uses h(text)
""")


@pytest.mark.parametrize("kind", SEEN)
def test_what_may_change_what_a_model_uses_counts(digest, kind):
    edited, text = SEEN[kind]
    assert edited in text
    after = text.replace(edited, "'words and'" if edited[0] == "'" else _other(edited))
    assert digest(text) == digest(text)
    assert digest(text) != digest(after)


@pytest.mark.parametrize("kind", SEEN)
def test_a_comment_and_a_blank_line_do_not_count(digest, kind):
    _, text = SEEN[kind]
    assert digest(text) == digest("# first\n\n" + text.replace("\n", "  # so\n\n"))


@pytest.mark.parametrize("kind", UNSEEN)
def test_what_the_model_does_not_use_does_not_count(digest, kind):
    edited, text = UNSEEN[kind]
    assert edited in text
    assert digest(text) == digest(text.replace(edited, "'WARNING'" if edited[0] == "'" else "other"))


def _other(edited: str) -> str:
    return {"True": "False", "== 1": "== 3", "< 3": "< 4", "> 3": "> 4", "int('1')": "int('x')"}.get(
        edited, edited.replace("1", "7").replace("2", "8").replace("words", "others")
    )


def test_every_release_of_python_gives_the_same_digests(digest):
    """As seen on 3.11, 3.12 and 3.13. Where it changes, stored models are computed again, unless `FORM` does too."""
    kinds = ["a match", "a comprehension", "singledispatch", "a docstring by inspect", "a nested class", "an enum"]
    told = "".join(digest(SEEN[kind][1]) for kind in kinds)
    assert (
        hashlib.sha256(told.encode()).hexdigest() == "b0107b2229cd92a6090c2194382d6e726f12d4c02e5d050f316624a4775b5856"
    )
