"""What a stored condition may hold: operators, functions, types and constants by name, and how large it may be.

A name is on a list because it computes a value of its arguments and does nothing else: it reads no file, table or
setting, waits for nothing, writes nothing. Whatever is not here is refused when a select is stored and when it is read.
"""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]
"""One node: plain values, which JSON keeps."""

MAX_DEPTH = 60
MAX_NODES = 200_000
MAX_PARAMETERS = 65_535
MAX_TEXT = 10_000
"""Characters of a name or of a constant text; longer texts are parameters."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PREFIXES = {"NOT": 3, "-": 11, "+": 11, "~": 11, "@": 11, "|/": 11, "||/": 11}
"""Operators before their operand, with how tightly they bind."""

INFIXES = {
    "OR": 1, "AND": 2,
    "IS": 4, "IS NOT": 4, "IS DISTINCT FROM": 4, "IS NOT DISTINCT FROM": 4, "ISNULL": 4, "NOTNULL": 4,
    "=": 5, "==": 5, "<>": 5, "!=": 5, "<": 5, "<=": 5, ">": 5, ">=": 5,
    "IN": 6, "NOT IN": 6, "BETWEEN": 6, "NOT BETWEEN": 6, "BETWEEN SYMMETRIC": 6, "NOT BETWEEN SYMMETRIC": 6,
    "LIKE": 6, "NOT LIKE": 6, "ILIKE": 6, "NOT ILIKE": 6, "SIMILAR TO": 6, "NOT SIMILAR TO": 6,
    "GLOB": 6, "NOT GLOB": 6, "REGEXP": 6, "NOT REGEXP": 6, "MATCH": 6, "NOT MATCH": 6,
    "+": 8, "-": 8, "*": 9, "/": 9, "%": 9, "^": 10, "AT TIME ZONE": 12,
}  # fmt: skip
"""Operators between their operands, or after the only one."""

OTHERS = frozenset({
    "||", "|", "&", "#", "<<", ">>", "~", "~*", "!~", "!~*", "~~", "~~*", "!~~", "!~~*", "@>", "<@", "?", "?|", "?&",
    "@?", "@@", "->", "->>", "#>", "#>>", "#-", "&&", "-|-", "&<", "&>", "|>>", "<<|", "<<=", ">>=", "<->", "<#>",
    "<=>", "<+>", "<~>", "<%>", "<%", "%>", "//", "^@",
})  # fmt: skip
"""The rest of the operators, of the precedence that they all have on PostgreSQL."""
OTHERS_BIND = 7

ALONE = frozenset({"ISNULL", "NOTNULL"})
BETWEENS = frozenset(name for name in INFIXES if "BETWEEN" in name)
SETS = frozenset({"IN", "NOT IN"})
ESCAPED = frozenset({"LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE", "SIMILAR TO", "NOT SIMILAR TO"})
"""What may have an ESCAPE as a third operand."""

CONSTANTS = {
    "NULL": "NULL", "TRUE": "true", "FALSE": "false", "UNKNOWN": "UNKNOWN", "CURRENT_DATE": "CURRENT_DATE",
    "CURRENT_TIME": "CURRENT_TIME", "CURRENT_TIMESTAMP": "CURRENT_TIMESTAMP", "LOCALTIME": "LOCALTIME",
    "LOCALTIMESTAMP": "LOCALTIMESTAMP",
}  # fmt: skip

PARTS_OF_TIMES = frozenset({
    "century", "day", "decade", "dow", "doy", "epoch", "hour", "isodow", "isoyear", "julian", "microsecond",
    "microseconds", "millennium", "millisecond", "milliseconds", "minute", "month", "quarter", "second", "timezone",
    "timezone_hour", "timezone_minute", "week", "year",
})  # fmt: skip

VOLATILE = frozenset({"random"})
"""Functions by which other rows are meant each time; of selects with a LIMIT, such as samples, alone."""

FUNCTIONS = VOLATILE | _words(
    # text
    "lower upper initcap length char_length character_length octet_length bit_length trim ltrim rtrim btrim substr "
    "substring substring_index replace translate left right lpad rpad reverse concat concat_ws position strpos instr "
    "starts_with split_part ascii unicode chr char hex unhex to_hex encode decode md5 sha224 sha256 sha384 sha512 "
    "quote quote_literal quote_nullable format printf like glob regexp regexp_replace regexp_match regexp_like "
    "regexp_count regexp_substr regexp_instr string_to_array array_to_string normalize overlay unaccent similarity "
    "word_similarity strict_word_similarity levenshtein soundex difference metaphone dmetaphone hashtext "
    "hashtextextended crc32 "
    # numbers
    "abs round ceil ceiling floor trunc sign sqrt cbrt power pow exp ln log log10 log2 mod div gcd lcm greatest least "
    "sin cos tan asin acos atan atan2 sinh cosh tanh radians degrees pi width_bucket scale min_scale "
    "trim_scale bit_count "
    # what is missing
    "coalesce nullif ifnull iif num_nulls num_nonnulls typeof "
    # times
    "now transaction_timestamp statement_timestamp date time datetime julianday unixepoch strftime timediff date_part "
    "date_trunc date_bin date_add date_subtract age make_date make_time make_timestamp make_timestamptz make_interval "
    "to_char to_date to_number to_timestamp timezone justify_days justify_hours justify_interval isfinite extract "
    # JSON
    "json jsonb json_extract jsonb_extract json_quote json_type json_valid json_array json_object json_array_length "
    "json_each json_tree json_patch json_insert json_remove json_replace json_set json_typeof jsonb_typeof to_json "
    "to_jsonb json_extract_path json_extract_path_text jsonb_extract_path jsonb_extract_path_text jsonb_array_length "
    "json_build_array json_build_object jsonb_build_array jsonb_build_object jsonb_strip_nulls json_strip_nulls "
    "jsonb_set jsonb_insert jsonb_exists jsonb_contains jsonb_contained jsonb_path_exists jsonb_path_match "
    "jsonb_path_query_first jsonb_path_query_array jsonb_pretty json_exists json_value json_query "
    # arrays and ranges
    "array_length cardinality array_position array_positions array_append array_prepend array_remove array_replace "
    "array_cat array_upper array_lower array_ndims array_dims array_sort array_reverse isempty lower_inc upper_inc "
    "lower_inf upper_inf range_merge int4range int8range numrange tsrange tstzrange daterange "
    # words, vectors, addresses
    "to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank ts_rank_cd setweight strip "
    "numnode cosine_distance l1_distance l2_distance inner_product vector_dims vector_norm l2_normalize host family "
    "masklen netmask network broadcast set_masklen inet_same_family "
    # over many rows
    "count sum total avg min max every bool_and bool_or bit_and bit_or string_agg group_concat array_agg json_agg "
    "jsonb_agg json_group_array json_group_object json_object_agg jsonb_object_agg stddev stddev_pop stddev_samp "
    "variance var_pop var_samp mode percentile_cont percentile_disc row_number rank dense_rank percent_rank cume_dist "
    "ntile lag lead first_value last_value nth_value"
)

ROWS_OF = {
    "json_each": ("key", "value", "type", "atom", "id", "parent", "fullkey", "path"),
    "json_tree": ("key", "value", "type", "atom", "id", "parent", "fullkey", "path"),
    "jsonb_each": ("key", "value"), "json_each_text": ("key", "value"), "jsonb_each_text": ("key", "value"),
    "unnest": ("unnest",), "jsonb_array_elements": ("value",), "json_array_elements": ("value",),
    "jsonb_array_elements_text": ("value",), "json_array_elements_text": ("value",),
    "jsonb_object_keys": (), "json_object_keys": (), "regexp_split_to_table": (),
    "string_to_table": (),
}  # fmt: skip
"""Functions that may stand in a FROM, and in place of a value, with the columns of their rows."""

TYPES = _words(
    "bigint bigserial bit blob bool boolean bpchar bytea char character cidr citext clob date datemultirange daterange "
    "datetime decimal double double_precision float float4 float8 hstore inet int int2 int4 int4range int8 int8range "
    "integer interval json jsonb jsonpath ltree macaddr macaddr8 money nchar numeric numrange nvarchar real smallint "
    "text time timestamp timestamptz timetz tinyint tsquery tsrange tstzrange tsvector uuid varbinary varbit varchar "
    "vector halfvec sparsevec xid"
)
SECOND_WORDS = {"double": "precision", "character": "varying", "char": "varying", "bit": "varying"}
ZONED = frozenset({"time", "timestamp"})

JOINS = frozenset({
    "JOIN", "INNER JOIN", "LEFT JOIN", "LEFT OUTER JOIN", "RIGHT JOIN", "RIGHT OUTER JOIN", "FULL JOIN",
    "FULL OUTER JOIN", "CROSS JOIN",
})  # fmt: skip
COMPOUNDS = frozenset({
    "UNION", "UNION ALL", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL",
})  # fmt: skip

RESERVED = _words(
    "ALL AND ANY ARRAY AS ASC BETWEEN BY CASE CAST COLLATE CROSS DESC DISTINCT ELSE END ESCAPE EXCEPT EXISTS FETCH "
    "FOR FROM FULL GROUP HAVING IN INNER INTERSECT INTO IS JOIN LATERAL LEFT LIKE LIMIT NATURAL NOT NULL OFFSET ON OR "
    "ORDER OUTER OVER RIGHT SELECT SOME TABLESAMPLE THEN UNION USING VALUES WHEN WHERE WINDOW WITH WITHIN"
)
"""Words that are no names unless they are quoted."""


def binding(operator: str) -> int | None:
    """How tightly an infix operator binds; None for what is none."""
    return OTHERS_BIND if operator in OTHERS else INFIXES.get(operator)
