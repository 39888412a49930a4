INSERT INTO "pinnacle"."pinnacle_state_1" (k0, fingerprint, version, failed)
  SELECT "docs"."id", decode(md5(record_send(row(docs.body))), 'hex'), 0, true
  FROM "docs"
  WHERE "docs"."id" = %s::integer AND decode(md5(record_send(row(docs.body))), 'hex') = %s
  ON CONFLICT (k0) DO UPDATE
  SET fingerprint = excluded.fingerprint, version = excluded.version, failed = excluded.failed;

DELETE FROM pinnacle.pinnacle_error
  WHERE pinnacle.pinnacle_error.output_id = %(output_id_1)s::INTEGER AND pinnacle.pinnacle_error.key = %(key_1)s::VARCHAR;

INSERT INTO pinnacle.pinnacle_error (output_id, key, version, error, message, traceback, attempts, failed_at)
  VALUES (%(output_id)s::INTEGER, %(key)s::VARCHAR, %(version)s::INTEGER, %(error)s::VARCHAR, %(message)s::VARCHAR, %(traceback)s::VARCHAR, %(attempts)s::INTEGER, %(failed_at)s);

SELECT pinnacle.pinnacle_error.key
  FROM pinnacle.pinnacle_error
  WHERE pinnacle.pinnacle_error.output_id = %(output_id_1)s::INTEGER AND pinnacle.pinnacle_error.traceback != ''
  ORDER BY pinnacle.pinnacle_error.failed_at DESC, pinnacle.pinnacle_error.key
  LIMIT ALL OFFSET %(param_1)s::INTEGER FOR UPDATE SKIP LOCKED;
