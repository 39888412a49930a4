"""What a stored filter may hold: the operators of MongoDB that compare and compute, and none that run code.

A filter comes back from the database, and whoever may write there may have made it. ``$where``, ``$function`` and
``$accumulator`` are JavaScript that the server runs; those that are not known here are refused too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pinnacle.base.errors import UnsupportedQuery

MAX_DEPTH = 100


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPERATORS = _words(
    "$and $or $nor $not $eq $ne $gt $gte $lt $lte $in $nin $exists $type $mod $regex $options $all $elemMatch $size "
    "$bitsAllClear $bitsAllSet $bitsAnyClear $bitsAnySet $text $search $language $caseSensitive $diacriticSensitive "
    "$geoIntersects $geoWithin $near $nearSphere $geometry $box $center $centerSphere $polygon $maxDistance "
    "$minDistance $uniqueDocs $comment $jsonSchema $expr $ref $id $db $alwaysTrue $alwaysFalse"
)
"""Of filters, and of values in them."""

EXPRESSIONS = _words(
    "$abs $acos $acosh $add $allElementsTrue $and $anyElementTrue $arrayElemAt $arrayToObject $asin $asinh $atan "
    "$atan2 $atanh $avg $binarySize $bitAnd $bitNot $bitOr $bitXor $bsonSize $ceil $cmp $concat $concatArrays $cond "
    "$convert $cos $cosh $dateAdd $dateDiff $dateFromParts $dateFromString $dateSubtract $dateToParts $dateToString "
    "$dateTrunc $dayOfMonth $dayOfWeek $dayOfYear $degreesToRadians $divide $eq $exp $filter $first $firstN $floor "
    "$getField $gt $gte $hour $ifNull $in $indexOfArray $indexOfBytes $indexOfCP $isArray $isNumber $isoDayOfWeek "
    "$isoWeek $isoWeekYear $last $lastN $let $literal $ln $log $log10 $lt $lte $ltrim $map $max $maxN $median "
    "$mergeObjects $meta $millisecond $min $minN $minute $mod $month $multiply $ne $not $objectToArray $or "
    "$percentile $pow $radiansToDegrees $range $reduce $regexFind $regexFindAll $regexMatch $replaceAll $replaceOne "
    "$reverseArray $round $rtrim $second $setDifference $setEquals $setField $setIntersection $setIsSubset $setUnion "
    "$sin $sinh $size $slice $sortArray $split $sqrt $stdDevPop $stdDevSamp $strLenBytes $strLenCP $strcasecmp "
    "$substr $substrBytes $substrCP $subtract $sum $switch $tan $tanh $toBool $toDate $toDecimal $toDouble $toInt "
    "$toLong $toLower $toObjectId $toString $toUUID $toUpper $trim $trunc $tsIncrement $tsSecond $type $unsetField "
    "$week $year $zip"
)
"""Of what stands in an ``$expr``."""

CODE = _words("$where $function $accumulator")
CHANCE = _words("$rand $sampleRate")


def check_filter(condition: Any, *, by_chance: bool = False) -> None:
    """UnsupportedQuery naming an operator that a stored filter may not have; chance may choose only for a sample."""
    _check(condition, OPERATORS | CHANCE if by_chance else OPERATORS, by_chance, 0)


def _check(value: Any, known: frozenset[str], by_chance: bool, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise UnsupportedQuery(f"the filter is nested more than {MAX_DEPTH} deep")
    if isinstance(value, (list, tuple)):
        for item in value:
            _check(item, known, by_chance, depth + 1)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if str(name).startswith("$") and name not in known:
                raise UnsupportedQuery(_why_not(str(name)))
            if name == "$expr":
                _check(item, EXPRESSIONS | CHANCE if by_chance else EXPRESSIONS, by_chance, depth + 1)
            elif name != "$literal":
                _check(item, known, by_chance, depth + 1)


def _why_not(name: str) -> str:
    if name in CODE:
        return f"the filter runs code by {name}, which is not kept; say it with operators, or keep it in a field"
    if name in CHANCE:
        return f"the filter chooses by chance ({name}), and a listener keeps those that it chose"
    return f"the filter uses {name}, which is not among the operators that are kept"
