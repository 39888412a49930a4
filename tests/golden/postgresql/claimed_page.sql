SELECT set_config('row_security', 'off', true), set_config('extra_float_digits', '1', true), set_config('plan_cache_mode', 'force_custom_plan', true);

SELECT pinnacle.pinnacle_output.released
  FROM pinnacle.pinnacle_output
  WHERE pinnacle.pinnacle_output.id = %(id_1)s::INTEGER;

SELECT set_config('row_security', 'off', true), set_config('extra_float_digits', '1', true), set_config('plan_cache_mode', 'force_custom_plan', true);

WITH page AS MATERIALIZED (SELECT docs.id AS c0, docs.body AS c1, CASE
    WHEN (pinnacle.pinnacle_state_1.version IS NULL) THEN %(param_1)s::INTEGER
    WHEN (pinnacle.pinnacle_state_1.version != %(version_1)s::INTEGER) THEN %(param_2)s::INTEGER
    WHEN (CASE
      WHEN pinnacle.pinnacle_state_1.failed THEN decode(md5(record_send(row(docs.body))), %(decode_3)s::VARCHAR) ELSE decode(md5(record_send(row(docs.body, docs.loud))), %(decode_4)s::VARCHAR)
      END != pinnacle.pinnacle_state_1.fingerprint) THEN %(param_3)s::INTEGER
    WHEN pinnacle.pinnacle_state_1.failed THEN %(param_4)s::INTEGER ELSE %(param_5)s::INTEGER
    END AS verdict
    FROM docs
    LEFT OUTER JOIN pinnacle.pinnacle_state_1 ON pinnacle.pinnacle_state_1.k0 = docs.id AND pinnacle.pinnacle_state_1.k0 = any(CAST(%(param_6)s AS integer[]))
    WHERE docs.id = any(CAST(%(param_7)s AS integer[]))
    ORDER BY docs.id)
  SELECT page.c0, page.c1, decode(md5(record_send(row(page.c1))), %(decode_2)s::VARCHAR) AS decode_1, CAST(page.verdict AS BIGINT) AS verdict, CAST(NULL AS BIGINT) AS anon_1, CAST(NULL AS BIGINT) AS anon__1, CAST(NULL AS BIGINT) AS anon__2
  FROM page
  WHERE page.verdict <= %(verdict_1)s::INTEGER
  UNION ALL
  SELECT last.c0, NULL AS anon_1, NULL AS anon__3, tally.read, tally.fresh, tally.set_aside, tally.missing
  FROM (SELECT page.c0 AS c0
    FROM page
    ORDER BY page.c0 DESC
    LIMIT %(param_8)s::INTEGER) AS last
  JOIN (SELECT count(*) AS read, count(*) FILTER (WHERE page.verdict = %(verdict_2)s::INTEGER) AS fresh, count(*) FILTER (WHERE page.verdict = %(verdict_3)s::INTEGER) AS set_aside, count(*) FILTER (WHERE page.verdict = %(verdict_4)s::INTEGER) AS missing
    FROM page) AS tally ON true;
