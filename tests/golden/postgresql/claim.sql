SELECT set_config('row_security', 'off', true), set_config('extra_float_digits', '1', true), set_config('plan_cache_mode', 'force_custom_plan', true);

SELECT min(place)
  FROM "pinnacle"."pinnacle_work_1";

SELECT set_config('row_security', 'off', true), set_config('extra_float_digits', '1', true), set_config('plan_cache_mode', 'force_custom_plan', true);

SELECT pinnacle.pinnacle_work_1.place
  FROM pinnacle.pinnacle_work_1
  WHERE pinnacle.pinnacle_work_1.place >= %(place_1)s::BIGINT
  LIMIT %(param_1)s::INTEGER;

UPDATE pinnacle.pinnacle_output
  SET released=pinnacle.pinnacle_output.released
  WHERE pinnacle.pinnacle_output.id = %(id_1)s::INTEGER;

SELECT pinnacle.pinnacle_lease.id, pinnacle.pinnacle_lease.process, pinnacle.pinnacle_lease.expires_at
  FROM pinnacle.pinnacle_lease
  WHERE pinnacle.pinnacle_lease.output_id = %(output_id_1)s::INTEGER AND pinnacle.pinnacle_lease.owner != %(owner_1)s::VARCHAR;

SELECT pinnacle.pinnacle_work_1.k0, pinnacle.pinnacle_work_1.place, pinnacle.pinnacle_work_1.revision
  FROM pinnacle.pinnacle_work_1
  WHERE pinnacle.pinnacle_work_1.place >= %(place_1)s::BIGINT
  ORDER BY pinnacle.pinnacle_work_1.place
  LIMIT %(param_1)s::INTEGER;

INSERT INTO pinnacle.pinnacle_lease (id, output_id, owner, process, expires_at, keys)
  VALUES (%(id)s::VARCHAR, %(output_id)s::INTEGER, %(owner)s::VARCHAR, %(process)s::VARCHAR, %(expires_at)s, %(keys)s::VARCHAR);
