SELECT main.pinnacle_output.released
  FROM main.pinnacle_output
  WHERE main.pinnacle_output.id = 1;

SELECT docs.id, docs.body, docs.loud, main.pinnacle_state_1.fingerprint, main.pinnacle_state_1.version, main.pinnacle_state_1.failed
  FROM docs
  LEFT OUTER JOIN main.pinnacle_state_1 ON main.pinnacle_state_1.k0 = docs.id AND main.pinnacle_state_1.k0 IN (SELECT anon_1.value
    FROM json_each('[1, 2, 3]') AS anon_1)
  WHERE docs.id IS NOT NULL AND docs.id IN (SELECT anon_2.value
    FROM json_each('[1, 2, 3]') AS anon_2)
  ORDER BY docs.id;
