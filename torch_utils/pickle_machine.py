"""A reader of pickle streams that can build plain data and nothing else.

It interprets the opcodes itself and never imports what a stream names: every global must be an entry of a table given
by the caller, so the only code that a stream can reach is the table's. Opcodes that have no use in honest snapshots
(extension codes, persistent ids, out-of-band buffers, old-style instances) are refused.
Must not know torch, numpy or networks; those are in the caller's table.
"""

import io
import pickletools

MAX_OPCODES = 20_000_000
_MARK = object()


class Refused(Exception):
    """The stream asks for something that would run code, or that is not in the table. `what` names it.

    unfinished: what the machine had read so far and not yet put together, to tell where in the file it happened.
    """

    def __init__(self, what):
        super().__init__(what)
        self.what = what
        self.unfinished = ()


class Corrupt(Exception):
    """The stream is not a whole, well-formed pickle."""


class Function:
    """A table entry: what a stream may call. `call(*args)` returns the stand-in of the real result.

    new: how the stream may make an instance without arguments through NEWOBJ; None when it may not.
    """

    def __init__(self, name, call, new=None):
        self.name = name
        self.call = call
        self.new = new


class Buildable:
    """Base of stand-ins that accept a BUILD state. The machine calls nothing else on what it made."""

    def set_state(self, state):
        raise NotImplementedError


def load(stream, table):
    """Read one pickle from a binary stream; returns its object tree. `table`: (module, name) -> Function or constant."""
    return _Machine(table).run(_BoundedReader(stream))


class _BoundedReader:
    """Reads no further than the stream goes: lengths claimed by the stream must not make us allocate them."""

    def __init__(self, stream):
        if not (hasattr(stream, "seekable") and stream.seekable()):
            stream = io.BytesIO(stream.read())
        self._stream = stream
        position = stream.tell()
        self._end = stream.seek(0, io.SEEK_END)
        stream.seek(position)

    def read(self, count=-1):
        remaining = self._end - self._stream.tell()
        return self._stream.read(remaining if count < 0 else min(count, remaining))

    def readline(self):
        return self._stream.readline()

    def tell(self):
        return self._stream.tell()


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
}
_REFUSED = {
    "INST": "an old-style instance",
    "OBJ": "an old-style instance",
    "EXT1": "an extension code",
    "EXT2": "an extension code",
    "EXT4": "an extension code",
    "PERSID": "a persistent id",
    "BINPERSID": "a persistent id",
    "NEXT_BUFFER": "an out-of-band buffer",
    "READONLY_BUFFER": "an out-of-band buffer",
}
_TUPLE_SIZES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}


class _Machine:
    def __init__(self, table):
        self.table = table
        self.stack = []
        self.memo = {}

    def run(self, reader):
        try:
            for count, (opcode, arg, _position) in enumerate(pickletools.genops(reader)):
                if count > MAX_OPCODES:
                    raise Refused(f"more than {MAX_OPCODES} steps")
                if opcode.name == "STOP":
                    return self._pop()
                self._step(opcode.name, arg)
        except Refused as refused:
            refused.unfinished = tuple(self.stack)
            raise
        except (ValueError, IndexError, KeyError, UnicodeError, OverflowError) as error:
            # What a damaged stream makes of the decoder or of our stack; table entries raise Refused.
            raise Corrupt(f"{error}") from error
        raise Corrupt("the end is missing")

    def _step(self, name, arg):
        if name in _LITERALS:
            self.stack.append(arg)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLE_SIZES:
            size = _TUPLE_SIZES[name]
            items = tuple(self._pop() for _ in range(size))[::-1]
            self.stack.append(items)
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _REFUSED:
            raise Refused(_REFUSED[name])
        else:
            handler = getattr(self, "_op_" + name, None)
            if handler is None:
                raise Refused(f"the pickle instruction {name}")
            handler(arg)

    def _pop(self):
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("unbalanced mark")
        return value

    def _pop_to_mark(self):
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise ValueError("no mark")

    def _top(self):
        if self.stack[-1] is _MARK:
            raise ValueError("unbalanced mark")
        return self.stack[-1]

    # Bookkeeping.

    def _op_PROTO(self, version):
        if version > 5:
            raise ValueError(f"a pickle of protocol {version}, which does not exist: the file is damaged")

    def _op_FRAME(self, _size):
        pass  # frames only help buffered readers

    def _op_MARK(self, _arg):
        self.stack.append(_MARK)

    def _op_POP(self, _arg):
        self.stack.pop()

    def _op_POP_MARK(self, _arg):
        self._pop_to_mark()

    def _op_DUP(self, _arg):
        self.stack.append(self._top())

    def _op_MEMOIZE(self, _arg):
        self.memo[len(self.memo)] = self._top()

    def _op_PUT(self, index):
        self.memo[index] = self._top()

    def _op_GET(self, index):
        self.stack.append(self.memo[index])

    _op_BINPUT = _op_LONG_BINPUT = _op_PUT
    _op_BINGET = _op_LONG_BINGET = _op_GET

    # Containers.

    def _op_BYTEARRAY8(self, data):
        self.stack.append(bytearray(data))

    def _op_LIST(self, _arg):
        self.stack.append(self._pop_to_mark())

    def _op_TUPLE(self, _arg):
        self.stack.append(tuple(self._pop_to_mark()))

    def _op_DICT(self, _arg):
        items = self._pop_to_mark()
        self.stack.append({})
        self._set_items(items)

    def _op_FROZENSET(self, _arg):
        self.stack.append(frozenset(map(simple_key, self._pop_to_mark())))

    def _op_APPEND(self, _arg):
        self._extend([self._pop()])

    def _op_APPENDS(self, _arg):
        self._extend(self._pop_to_mark())

    def _extend(self, items):
        target = self._top()
        if type(target) is not list:
            raise Refused(f"items appended to {kind(target)}")
        target.extend(items)

    def _op_ADDITEMS(self, _arg):
        items = self._pop_to_mark()
        target = self._top()
        if type(target) is not set:
            raise Refused(f"items added to {kind(target)}")
        target.update(map(simple_key, items))

    def _op_SETITEM(self, _arg):
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _op_SETITEMS(self, _arg):
        self._set_items(self._pop_to_mark())

    def _set_items(self, items):
        target = self._top()
        if not isinstance(target, dict):
            raise Refused(f"items set on {kind(target)}")
        if len(items) % 2:
            raise ValueError("a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            target[simple_key(key)] = value  # one of the table's dictionary classes: nothing foreign runs

    # Globals and calls: nothing but the table's own functions.

    def _op_GLOBAL(self, arg):
        module, name = arg.split(" ", 1)
        self._push_global(module, name)

    def _op_STACK_GLOBAL(self, _arg):
        name, module = self._pop(), self._pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("the name of a global is not text")
        self._push_global(module, name)

    def _push_global(self, module, name):
        if (module, name) not in self.table:
            raise Refused(f"{module}.{name}")
        self.stack.append(self.table[module, name])

    def _op_REDUCE(self, _arg):
        args, function = self._pop(), self._pop()
        if not isinstance(function, Function):
            raise Refused(f"a call of {kind(function)}")
        if type(args) is not tuple:
            raise Refused(f"a call of {function.name} with {kind(args)}")
        self.stack.append(_guarded(function.call, args, f"a call of {function.name} with unfitting arguments"))

    def _op_NEWOBJ(self, _arg):
        args, function = self._pop(), self._pop()
        self._make(function, args, {})

    def _op_NEWOBJ_EX(self, _arg):
        kwargs, args, function = self._pop(), self._pop(), self._pop()
        self._make(function, args, kwargs)

    def _make(self, function, args, kwargs):
        plain = type(args) is tuple and type(kwargs) is dict and not args and not kwargs
        if not isinstance(function, Function) or function.new is None or not plain:
            raise Refused(f"an instance of {function.name if isinstance(function, Function) else kind(function)}")
        self.stack.append(function.new())

    def _op_BUILD(self, _arg):
        state = self._pop()
        target = self._top()
        if isinstance(target, Buildable):
            _guarded(target.set_state, (state,), f"an unfitting state for {kind(target)}")
        elif isinstance(target, dict) and type(state) is dict and state.keys() <= {"_metadata"}:
            pass  # ordered dictionaries of torch carry their version notes this way
        else:
            raise Refused(f"a state for {kind(target)}")


def _guarded(function, args, what):
    """Call a function of the table; what it raises about arguments of the wrong number or kind becomes a refusal."""
    try:
        return function(*args)
    except (TypeError, AttributeError, RuntimeError) as error:
        raise Refused(what) from error


_KEY_TYPES = (str, int, float, bytes, type(None))


def simple_key(key):
    """The key itself if it is a number, text or a flat tuple of those. Deeper keys could exhaust the C stack."""
    if isinstance(key, _KEY_TYPES) or (type(key) is tuple and all(isinstance(part, _KEY_TYPES) for part in key)):
        return key
    raise Refused(f"{kind(key)} as a key")


def kind(value):
    """A few words about a value for a message. Never its content, which the stream decides."""
    if isinstance(value, Function):
        return value.name
    return f"an object of type {type(value).__name__}"
