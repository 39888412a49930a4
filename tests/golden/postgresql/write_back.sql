SELECT pg_backend_pid();

SELECT set_config('row_security', 'off', true), set_config('extra_float_digits', '1', true), set_config('enable_mergejoin', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('lock_timeout', '20ms', true);

SELECT EXISTS (SELECT
    FROM pg_trigger
    WHERE tgrelid = ANY(ARRAY(SELECT CAST(to_regclass('"docs"') AS oid)
        UNION ALL
        SELECT CAST(relid AS oid)
        FROM pg_partition_tree(to_regclass('"docs"')))) AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 16 <> 0 AND NOT tgname ~ '^~?pinnacle_[0-9]+_');

SELECT set_config('row_security', 'off', true), set_config('extra_float_digits', '1', true), set_config('enable_mergejoin', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('lock_timeout', '20ms', true);

WITH pinnacle_guard AS MATERIALIZED (SELECT version, set_config('pinnacle.writer', '1', true), set_config('synchronous_commit', %s, true)
    FROM "pinnacle"."pinnacle_output"
    WHERE id = 1 FOR KEY SHARE), pinnacle_b (k0, o, h, n) AS MATERIALIZED (SELECT *
    FROM unnest(%b::integer[], %b::text[], %b::bytea[])
    WITH ORDINALITY), pinnacle_u (n, k0, fingerprint) AS (UPDATE "docs"
    SET "loud" = pinnacle_b.o
    FROM pinnacle_b
    WHERE "docs"."id" = pinnacle_b.k0 AND decode(md5(record_send(row(docs.body))), 'hex') = pinnacle_b.h AND (SELECT version
      FROM pinnacle_guard) <= 0
    RETURNING pinnacle_b.n, "docs"."id", CASE
    WHEN decode(md5(record_send(row(docs.body))), 'hex') = pinnacle_b.h THEN decode(md5(record_send(row(docs.body, docs.loud))), 'hex') ELSE CAST('' AS bytea)
    END AS fingerprint), pinnacle_recorded AS (INSERT INTO "pinnacle"."pinnacle_state_1" (k0, fingerprint, version, failed)
    SELECT pinnacle_u.k0, pinnacle_u.fingerprint, 0, false
    FROM pinnacle_u
    ON CONFLICT (k0) DO UPDATE
    SET fingerprint = excluded.fingerprint, version = excluded.version, failed = excluded.failed) (SELECT n, NULL::integer, NULL::boolean, NULL::boolean
    FROM pinnacle_b
    EXCEPT ALL
    SELECT n, NULL, NULL, NULL
    FROM pinnacle_u)
  UNION ALL
  SELECT NULL, (SELECT version
    FROM pinnacle_guard), EXISTS (SELECT 1
    FROM "pinnacle"."pinnacle_error"
    WHERE output_id = 1), EXISTS (SELECT
    FROM pg_trigger
    WHERE tgrelid = ANY(ARRAY(SELECT CAST(to_regclass('"docs"') AS oid)
        UNION ALL
        SELECT CAST(relid AS oid)
        FROM pg_partition_tree(to_regclass('"docs"')))) AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 16 <> 0 AND NOT tgname ~ '^~?pinnacle_[0-9]+_');
