SELECT min(place)
  FROM "pinnacle_work_1";

SELECT main.pinnacle_work_1.place
  FROM main.pinnacle_work_1
  WHERE main.pinnacle_work_1.place >= 1
  LIMIT 1 OFFSET 0;

SELECT id
  FROM "pinnacle_identity";

UPDATE main.pinnacle_output
  SET released=main.pinnacle_output.released
  WHERE main.pinnacle_output.id = 1;

SELECT main.pinnacle_lease.id, main.pinnacle_lease.process, main.pinnacle_lease.expires_at
  FROM main.pinnacle_lease
  WHERE main.pinnacle_lease.output_id = 1 AND main.pinnacle_lease.owner != '';

SELECT main.pinnacle_work_1.k0, main.pinnacle_work_1.place, main.pinnacle_work_1.revision
  FROM main.pinnacle_work_1
  WHERE main.pinnacle_work_1.place >= 1
  ORDER BY main.pinnacle_work_1.place
  LIMIT 10 OFFSET 0;

INSERT INTO main.pinnacle_lease (id, output_id, owner, process, expires_at, keys)
  VALUES ('<id>', 1, 'owner', '<process>', <time>, '{"from": 1, "to": 3}');
