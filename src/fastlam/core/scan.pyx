"""Says whether a payload is one well-formed JSON value in UTF-8, and if not, why, in the words of Lambda's own service.

Lambda's frontend parses with Jackson, and its texts and positions reach the caller. They are rebuilt here from what
csrc/fl_json.c found, on the error path only: a good payload costs one pass over its bytes and builds nothing.
Columns are Jackson's (2.17): of the offending byte for a character that is out of place, and of the byte after it
where the text names a token, a number or UTF-8.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastlam.limits import EVENT_DEPTH_MAX, SCAN_WITHOUT_GIL_BYTES_MIN

cdef extern from "fl_json.h" nogil:
    enum:
        FL_JSON_END_OF_INPUT
        FL_JSON_UNEXPECTED_CHARACTER
        FL_JSON_EXPECTED_VALUE
        FL_JSON_UNRECOGNIZED_TOKEN
        FL_JSON_INVALID_UTF8_START
        FL_JSON_INVALID_UTF8_MIDDLE
        FL_JSON_BAD_ESCAPE
        FL_JSON_BAD_ESCAPE_HEX
        FL_JSON_CONTROL_CHARACTER
        FL_JSON_LEADING_ZERO
        FL_JSON_NUMBER_NO_DIGIT
        FL_JSON_NUMBER_NO_FRACTION
        FL_JSON_NUMBER_NO_EXPONENT
        FL_JSON_NUMBER_NOT_SEPARATED
        FL_JSON_EXPECTED_COMMA
        FL_JSON_EXPECTED_COLON
        FL_JSON_EXPECTED_NAME
        FL_JSON_MISMATCHED_CLOSE
        FL_JSON_TRAILING_TOKENS
        FL_JSON_TOO_DEEP
    enum:
        FL_JSON_AT_START
        FL_JSON_IN_STRING
        FL_JSON_IN_NAME
        FL_JSON_IN_ESCAPE
        FL_JSON_IN_NUMBER
        FL_JSON_AFTER_OPEN
        FL_JSON_AFTER_COMMA
        FL_JSON_AFTER_NAME
        FL_JSON_AFTER_COLON
        FL_JSON_AFTER_VALUE
    ctypedef struct fl_json_error:
        uint32_t kind
        uint64_t offset
        uint64_t line
        uint64_t column
        uint32_t byte
        uint32_t state
        uint32_t opener
        uint32_t in_string
        uint64_t opener_line
        uint64_t opener_column
    int fl_json_scan(const uint8_t *bytes, size_t length, uint32_t depth_max, fl_json_error *error)

cdef uint32_t depth_max = EVENT_DEPTH_MAX
cdef size_t without_gil_bytes_min = SCAN_WITHOUT_GIL_BYTES_MIN

cdef str PREFIX = "Could not parse request body into json: Could not parse payload into json: "
cdef str VALUES = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')"
cdef str COMMENT = (
    "maybe a (non-standard) comment? (not recognized as one since Feature 'ALLOW_COMMENTS' not enabled for parser)"
)
cdef str PLUS = (
    "JSON spec does not allow numbers to have plus signs: enable"
    " `JsonReadFeature.ALLOW_LEADING_PLUS_SIGN_FOR_NUMBERS` to allow"
)
cdef size_t TOKEN_CHARACTERS_MAX = 256  # where Jackson cuts a token that it quotes


def scan_json(bytes data not None) -> "str | None":
    """None when `data` is well formed; else the message of Lambda's InvalidRequestContentException."""
    cdef const uint8_t *start = data
    cdef size_t length = len(data)
    cdef fl_json_error error
    cdef int result
    if length < without_gil_bytes_min:
        result = fl_json_scan(start, length, depth_max, &error)
    else:
        with nogil:
            result = fl_json_scan(start, length, depth_max, &error)
    return None if result == 0 else PREFIX + _describe(data, &error)


cdef str _describe(bytes data, fl_json_error *error):
    if error.kind == FL_JSON_TOO_DEEP:  # the one error that Jackson gives no position for
        return (
            f"Document nesting depth ({depth_max + 1}) exceeds the maximum allowed ({depth_max},"
            " from `StreamReadConstraints.getMaxNestingDepth()`)"
        )
    text, column = _reason(data, error)
    line = error.line
    if error.kind == FL_JSON_END_OF_INPUT and error.state == FL_JSON_AT_START:
        line = 1  # there was no token, and this text gives the last token's place
    return f"{text}\n at {_source(line, column)}"


cdef str _source(line, column):
    return (
        "[Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled);"
        f" line: {line}, column: {column}]"
    )


cdef tuple _reason(bytes data, fl_json_error *error):
    """Jackson's text and column."""
    kind, byte, column = error.kind, error.byte, error.column
    described = _character(byte)
    scope = "Object" if error.opener == c"{" else "Array" if error.opener == c"[" else "root"
    if kind == FL_JSON_END_OF_INPUT:
        return _end_of_input(data, error, scope)
    if kind == FL_JSON_INVALID_UTF8_START:
        return f"Invalid UTF-8 start byte 0x{byte:x}", column + 1
    if kind == FL_JSON_INVALID_UTF8_MIDDLE:
        return f"Invalid UTF-8 middle byte 0x{byte:x}", column + 1
    if kind == FL_JSON_CONTROL_CHARACTER:
        where = "name" if error.state == FL_JSON_IN_NAME else "string value"
        return (
            f"Illegal unquoted character ({described}): has to be escaped using backslash to be included in {where}",
            column,
        )
    if kind == FL_JSON_BAD_ESCAPE:
        return _decoded(data, error.offset, column, "Unrecognized character escape %s")
    if kind == FL_JSON_BAD_ESCAPE_HEX:
        return f"Unexpected character ({described}): expected a hex-digit for character escape sequence", column
    if kind == FL_JSON_LEADING_ZERO:
        return "Invalid numeric value: Leading zeroes not allowed", column
    if kind == FL_JSON_NUMBER_NO_DIGIT:
        return _no_digit(data, error)
    if kind == FL_JSON_NUMBER_NO_FRACTION:
        return _number(described, "Decimal point not followed by a digit"), column
    if kind == FL_JSON_NUMBER_NO_EXPONENT:
        return _number(described, "Exponent indicator not followed by a digit"), column
    if kind == FL_JSON_NUMBER_NOT_SEPARATED:
        return _unexpected(described, "Expected space separating root-level values"), column
    if kind == FL_JSON_UNRECOGNIZED_TOKEN:
        return _token(data, error)
    # What is left stands between tokens, where Jackson judges control characters and comments first.
    if byte < 0x20:
        return (
            f"Illegal character ({described}): only regular white space (\\r, \\n, \\t) is allowed between tokens",
            column,
        )
    if byte == c"/":
        return _unexpected(described, COMMENT), column
    if kind == FL_JSON_EXPECTED_COMMA:
        return _unexpected(described, f"was expecting comma to separate {scope} entries"), column
    if kind == FL_JSON_EXPECTED_COLON:
        return _unexpected(described, "was expecting a colon to separate field name and value"), column
    if kind == FL_JSON_EXPECTED_NAME:
        return _decoded(
            data, error.offset, column, "Unexpected character (%s): was expecting double-quote to start field name"
        )
    if kind == FL_JSON_MISMATCHED_CLOSE:
        other = "}" if byte == c"]" else "]"
        place = _source(error.opener_line, error.opener_column) if error.opener else _source(1, 0)
        return f"Unexpected close marker '{chr(byte)}': expected '{other}' (for {scope} starting at {place})", column
    if kind == FL_JSON_EXPECTED_VALUE and (byte != c"]" or error.opener == c"["):
        return _unexpected(described, "expected a value"), column
    if kind == FL_JSON_TRAILING_TOKENS:
        return _trailing(data, error)
    return _no_value(data, error)


cdef tuple _end_of_input(bytes data, fl_json_error *error, str scope):
    state, column = error.state, error.column
    if state == FL_JSON_AT_START:
        return "No content to map due to end-of-input", 0
    if state == FL_JSON_IN_NUMBER and data.endswith(b"."):
        return _number(_character(c"."), "Decimal point not followed by a digit"), column - 1
    if state == FL_JSON_IN_STRING:
        where = " in VALUE_STRING"
    elif state == FL_JSON_IN_ESCAPE:
        where = " in character escape sequence"
    elif state == FL_JSON_IN_NAME:
        empty = data.endswith(b'"') and not data.endswith(b'\\"')  # only the opening quote can be the last byte
        where = ": was expecting closing '\"' for name" if empty else " in field name"
    elif state == FL_JSON_IN_NUMBER:
        where = " in a Number value"
    elif state == FL_JSON_AFTER_OPEN or state == FL_JSON_AFTER_VALUE:
        place = _source(error.opener_line, error.opener_column)
        where = f": expected close marker for {scope} (start marker at {place})"
    else:
        where = f" within/between {scope} entries"
    return "Unexpected end-of-input" + where, column


cdef tuple _no_digit(bytes data, fl_json_error *error):
    """After a minus sign."""
    for name in (b"INF", b"Infinity"):
        if data.startswith(name, error.offset):
            return _not_standard(f"-{name.decode()}"), error.column + len(name)
    described = _character(error.byte)
    if error.byte == c".":
        return _unexpected(described, f"expected a valid value {VALUES}"), error.column
    return _number(described, "expected digit (0-9) to follow minus sign, for valid numeric value"), error.column


cdef tuple _no_value(bytes data, fl_json_error *error):
    """A byte that begins no value: Jackson takes it for a Latin-1 character to see whether it may begin a word."""
    byte, column = error.byte, error.column
    if byte == c"+":
        if error.offset + 1 == <uint64_t>len(data):
            return "Unexpected end-of-input in a Number value", column + 1
        return _number(_character(byte), PLUS), column + 1
    if byte >= 0x80 and _starts_word(byte):
        return _token(data, error)
    return _unexpected(_character(byte), f"expected a valid value {VALUES}"), column


cdef tuple _token(bytes data, fl_json_error *error):
    """A word, quoted up to the first character that cannot be in one; that character counts as read."""
    start = error.offset
    for name in (b"NaN", b"Infinity"):
        if data.startswith(name, start) and not data[start + len(name):start + len(name) + 1].isalnum():
            return _not_standard(name.decode()), error.column + len(name)
    token = chr(data[start])
    position = start + 1
    while position < <uint64_t>len(data):
        code, position, problem = _decode(data, position)
        if problem is not None:
            return problem, error.column + (position - start)
        if not _continues_word(code):
            break
        token += chr(code)
        if <size_t>len(token) >= TOKEN_CHARACTERS_MAX:
            token += "..."
            break
    return f"Unrecognized token '{token}': was expecting {VALUES}", error.column + (position - start)


cdef tuple _trailing(bytes data, fl_json_error *error):
    byte, rest = error.byte, data[error.offset:error.offset + 64]
    for word, name in ((b"true", "VALUE_TRUE"), (b"false", "VALUE_FALSE"), (b"null", "VALUE_NULL")):
        if rest.startswith(word) and not rest[len(word):len(word) + 1].isalnum():
            break
    else:
        name = {0x7B: "START_OBJECT", 0x5B: "START_ARRAY", 0x22: "VALUE_STRING", 0x2D: "VALUE_NUMBER_INT"}.get(byte)
        if c"0" <= byte <= c"9":
            digits = rest[:len(rest) - len(rest.lstrip(b"0123456789.eE+-"))]
            name = "VALUE_NUMBER_FLOAT" if any(mark in digits for mark in b".eE") else "VALUE_NUMBER_INT"
    if name is not None:
        return (
            f"Trailing token (of type {name}) found after value (bound as `com.fasterxml.jackson.databind.JsonNode`):"
            " not allowed as per `DeserializationFeature.FAIL_ON_TRAILING_TOKENS`",
            error.column,
        )
    if byte == c"]" or byte == c"}":
        other = "}" if byte == c"]" else "]"
        text = f"Unexpected close marker '{chr(byte)}': expected '{other}' (for root starting at {_source(1, 0)})"
        return text, error.column
    if byte == c",":
        return _unexpected(_character(byte), "expected a value"), error.column
    return _token(data, error) if _starts_word(byte) else _no_value(data, error)


cdef str _unexpected(str described, str comment):
    return f"Unexpected character ({described}): {comment}"


cdef str _number(str described, str comment):
    return f"Unexpected character ({described}) in numeric value: {comment}"


cdef str _not_standard(str name):
    return f"Non-standard token '{name}': enable `JsonReadFeature.ALLOW_NON_NUMERIC_NUMBERS` to allow"


cdef str _character(code):
    """How Jackson names a character: `'x' (code 120)`."""
    if code < 0x20 or 0x7F <= code < 0xA0:
        return f"(CTRL-CHAR, code {code})"
    shown = "?" if 0xD800 <= code < 0xE000 else chr(code)  # half a pair cannot be written
    return f"'{shown}' (code {code} / 0x{code:x})" if code > 255 else f"'{shown}' (code {code})"


cdef tuple _decoded(bytes data, offset, column, str text):
    """`text` with the whole character at `offset`; its last byte is the place."""
    code, position, problem = _decode(data, offset)
    if problem is not None:
        return problem, column + (position - offset)
    return text % _character(code), column + (position - offset) - 1


cdef tuple _decode(bytes data, position):
    """The Java char (16 bits) at `position`, the position after it, and Jackson's text if it is not UTF-8."""
    first = data[position]
    position += 1
    if first < 0x80:
        return first, position, None
    more = 1 if first & 0xE0 == 0xC0 else 2 if first & 0xF0 == 0xE0 else 3 if first & 0xF8 == 0xF0 else 0
    if more == 0:
        return 0, position, f"Invalid UTF-8 start byte 0x{first:x}"
    code = first & (0x3F >> more)
    for _ in range(more):
        if position == len(data):
            return 0, position, "Unexpected end-of-input in a value"
        byte = data[position]
        position += 1
        if byte & 0xC0 != 0x80:
            return 0, position, f"Invalid UTF-8 middle byte 0x{byte:x}"
        code = code << 6 | byte & 0x3F
    return code & 0xFFFF, position, None


cdef bint _starts_word(code):
    """Character.isJavaIdentifierStart."""
    import unicodedata

    return unicodedata.category(chr(code)) in ("Lu", "Ll", "Lt", "Lm", "Lo", "Nl", "Sc", "Pc")


cdef bint _continues_word(code):
    """Character.isJavaIdentifierPart: also digits, marks and what Java calls ignorable."""
    import unicodedata

    if code <= 0x08 or 0x0E <= code <= 0x1B or 0x7F <= code < 0xA0:
        return True
    return _starts_word(code) or unicodedata.category(chr(code)) in ("Nd", "Mn", "Mc", "Cf")
