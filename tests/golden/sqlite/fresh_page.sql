SELECT (EXISTS (SELECT 1 AS anon_2
      FROM docs
      WHERE docs.id IS NULL)) OR (EXISTS (SELECT *
      FROM main.pinnacle_error
      WHERE main.pinnacle_error.output_id = 1 AND (main.pinnacle_error."key" LIKE '%' || '"unreadable"' || '%'))) AS anon_1;

SELECT main.pinnacle_output.released
  FROM main.pinnacle_output
  WHERE main.pinnacle_output.id = 1;

SELECT 1 AS anon_1
  FROM main.pinnacle_state_1
  LIMIT 1 OFFSET 0;

SELECT docs.id, docs.body, docs.loud, main.pinnacle_state_1.fingerprint, main.pinnacle_state_1.version, main.pinnacle_state_1.failed
  FROM docs
  LEFT OUTER JOIN main.pinnacle_state_1 ON main.pinnacle_state_1.k0 = docs.id
  WHERE docs.id IS NOT NULL
  ORDER BY docs.id
  LIMIT 2 OFFSET 0;

SELECT main.pinnacle_output.released
  FROM main.pinnacle_output
  WHERE main.pinnacle_output.id = 1;

SELECT 1 AS anon_1
  FROM main.pinnacle_state_1
  WHERE main.pinnacle_state_1.k0 > 2
  LIMIT 1 OFFSET 0;

SELECT docs.id, docs.body, docs.loud, main.pinnacle_state_1.fingerprint, main.pinnacle_state_1.version, main.pinnacle_state_1.failed
  FROM docs
  LEFT OUTER JOIN main.pinnacle_state_1 ON main.pinnacle_state_1.k0 = docs.id AND main.pinnacle_state_1.k0 > 2
  WHERE docs.id IS NOT NULL AND docs.id > 2
  ORDER BY docs.id
  LIMIT 2 OFFSET 0;
