UPDATE pinnacle.pinnacle_listener
  SET processed=(pinnacle.pinnacle_listener.processed + %(processed_1)s::BIGINT)
  WHERE pinnacle.pinnacle_listener.output_id = %(output_id_1)s::INTEGER;

DELETE FROM "pinnacle"."pinnacle_work_1"
  WHERE place = ANY(%b::bigint[]) AND revision <= %b;

UPDATE "pinnacle"."pinnacle_work_1"
  SET place = DEFAULT
  WHERE place = ANY(%b::bigint[]);

UPDATE pinnacle.pinnacle_output
  SET released=(pinnacle.pinnacle_output.released + %(released_1)s::BIGINT)
  WHERE pinnacle.pinnacle_output.id = %(id_1)s::INTEGER;

DELETE FROM pinnacle.pinnacle_lease
  WHERE pinnacle.pinnacle_lease.id = %(id_1)s::VARCHAR;
