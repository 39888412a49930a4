SELECT id
  FROM "pinnacle_identity";

UPDATE main.pinnacle_listener
  SET processed=(main.pinnacle_listener.processed + 2)
  WHERE main.pinnacle_listener.output_id = 1;

DELETE FROM "pinnacle_work_1"
  WHERE place IN (SELECT value
    FROM json_each('[1, 3]')) AND revision <= 3;

SELECT main.pinnacle_listener.position
  FROM main.pinnacle_listener
  WHERE main.pinnacle_listener.output_id = 1;

UPDATE "pinnacle_work_1"
  SET place = 4
  WHERE place = 2;

UPDATE main.pinnacle_listener
  SET position='4'
  WHERE main.pinnacle_listener.output_id = 1;

UPDATE main.pinnacle_output
  SET released=(main.pinnacle_output.released + 1)
  WHERE main.pinnacle_output.id = 1;

DELETE FROM main.pinnacle_lease
  WHERE main.pinnacle_lease.id = '<id>';
