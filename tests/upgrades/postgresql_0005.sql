CREATE SCHEMA pinnacle;
CREATE FUNCTION pinnacle.pinnacle_capture_1_delete() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ BEGIN INSERT INTO "pinnacle"."pinnacle_outbox_1" (k0) SELECT r."id" FROM pinnacle_rows AS r; IF FOUND THEN PERFORM pg_notify('pinnacle', ''); END IF; RETURN NULL; EXCEPTION WHEN undefined_column OR undefined_table OR datatype_mismatch OR cannot_coerce THEN INSERT INTO "pinnacle"."pinnacle_outbox_1" (k0) VALUES (NULL); RETURN NULL; END $$;
CREATE FUNCTION pinnacle.pinnacle_capture_1_insert() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ BEGIN INSERT INTO "pinnacle"."pinnacle_outbox_1" (k0) SELECT r."id" FROM pinnacle_rows AS r; IF FOUND THEN PERFORM pg_notify('pinnacle', ''); END IF; RETURN NULL; EXCEPTION WHEN undefined_column OR undefined_table OR datatype_mismatch OR cannot_coerce THEN INSERT INTO "pinnacle"."pinnacle_outbox_1" (k0) VALUES (NULL); RETURN NULL; END $$;
CREATE FUNCTION pinnacle.pinnacle_capture_1_never() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION pinnacle.pinnacle_capture_1_row(o0 integer, n0 integer) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ BEGIN IF n0 IS NOT NULL THEN INSERT INTO "pinnacle"."pinnacle_outbox_1" (k0) VALUES (n0); END IF; IF o0 IS NOT NULL AND (o0) IS DISTINCT FROM (n0) THEN INSERT INTO "pinnacle"."pinnacle_outbox_1" (k0) VALUES (o0); END IF; PERFORM pg_notify('pinnacle', ''); RETURN false; END $$;
CREATE FUNCTION pinnacle.pinnacle_capture_1_truncate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ BEGIN INSERT INTO "pinnacle"."pinnacle_outbox_1" (k0) VALUES (NULL); PERFORM pg_notify('pinnacle', ''); RETURN NULL; END $$;
CREATE TABLE pinnacle.pinnacle_artifact (
    sha256 text NOT NULL,
    size bigint NOT NULL,
    key text
);
CREATE TABLE pinnacle.pinnacle_artifact_chunk (
    sha256 text NOT NULL,
    "position" integer NOT NULL,
    data bytea NOT NULL
);
CREATE TABLE pinnacle.pinnacle_batch (
    id text NOT NULL,
    output_id integer NOT NULL,
    model text NOT NULL,
    version integer NOT NULL,
    parameters text NOT NULL,
    created_at double precision NOT NULL,
    items text NOT NULL
);
CREATE TABLE pinnacle.pinnacle_cache (
    digest bytea NOT NULL,
    cached_at double precision NOT NULL,
    expires_at double precision NOT NULL,
    value text NOT NULL
);
CREATE TABLE pinnacle.pinnacle_component (
    kind text NOT NULL,
    identifier text NOT NULL,
    version integer NOT NULL,
    type text NOT NULL,
    body text NOT NULL,
    digest text NOT NULL,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE pinnacle.pinnacle_component_artifact (
    kind text NOT NULL,
    identifier text NOT NULL,
    version integer NOT NULL,
    sha256 text NOT NULL
);
CREATE TABLE pinnacle.pinnacle_error (
    output_id integer NOT NULL,
    key text NOT NULL,
    version integer NOT NULL,
    error text NOT NULL,
    message text NOT NULL,
    traceback text NOT NULL,
    attempts integer NOT NULL,
    failed_at double precision NOT NULL
);
CREATE TABLE pinnacle.pinnacle_lease (
    id text NOT NULL,
    output_id integer NOT NULL,
    run text NOT NULL,
    owner text NOT NULL,
    expires_at double precision NOT NULL,
    keys text NOT NULL
);
CREATE TABLE pinnacle.pinnacle_listener (
    output_id integer NOT NULL,
    identifier text NOT NULL,
    version integer NOT NULL,
    shape text NOT NULL,
    "position" text DEFAULT ''::text NOT NULL,
    paused text,
    sweep text,
    swept_at double precision DEFAULT '0'::double precision NOT NULL,
    folded_at double precision DEFAULT '0'::double precision NOT NULL,
    processed bigint DEFAULT '0'::bigint NOT NULL,
    error text,
    error_at double precision,
    is_writing boolean DEFAULT false NOT NULL
);
CREATE TABLE pinnacle.pinnacle_metric (
    run text NOT NULL,
    "position" integer NOT NULL,
    entry text NOT NULL
);
CREATE TABLE pinnacle.pinnacle_migration (
    version_num character varying(32) NOT NULL
);
CREATE TABLE pinnacle.pinnacle_outbox_1 (
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    k0 integer
);
CREATE TABLE pinnacle.pinnacle_output (
    id integer NOT NULL,
    table_schema text DEFAULT ''::text NOT NULL,
    table_name text NOT NULL,
    name text NOT NULL,
    model text NOT NULL,
    version integer NOT NULL,
    fields text NOT NULL,
    type text NOT NULL,
    created_column boolean NOT NULL,
    released bigint DEFAULT '0'::bigint NOT NULL,
    created_at timestamp with time zone NOT NULL
);
CREATE SEQUENCE pinnacle.pinnacle_output_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE pinnacle.pinnacle_output_id_seq OWNED BY pinnacle.pinnacle_output.id;
CREATE TABLE pinnacle.pinnacle_state_1 (
    k0 integer NOT NULL,
    fingerprint bytea NOT NULL,
    version integer NOT NULL,
    failed boolean NOT NULL
);
CREATE TABLE pinnacle.pinnacle_training (
    model text NOT NULL,
    token text NOT NULL,
    owner text NOT NULL,
    expires_at double precision NOT NULL
);
CREATE TABLE pinnacle.pinnacle_upload (
    key text NOT NULL,
    owner text NOT NULL,
    expires_at double precision NOT NULL
);
CREATE TABLE pinnacle.pinnacle_usage (
    day text NOT NULL,
    model text NOT NULL,
    output text NOT NULL,
    calls bigint NOT NULL,
    failed bigint NOT NULL,
    retried bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached bigint NOT NULL,
    cost double precision NOT NULL
);
CREATE TABLE pinnacle.pinnacle_work_1 (
    place bigint NOT NULL,
    k0 integer NOT NULL,
    revision bigint DEFAULT 0 NOT NULL,
    at double precision NOT NULL
);
ALTER TABLE pinnacle.pinnacle_work_1 ALTER COLUMN place ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME pinnacle.pinnacle_work_1_place_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.docs (
    id integer NOT NULL,
    body text,
    loud text
);
ALTER TABLE ONLY pinnacle.pinnacle_output ALTER COLUMN id SET DEFAULT nextval('pinnacle.pinnacle_output_id_seq'::regclass);
INSERT INTO pinnacle.pinnacle_component VALUES ('model', 'picky', 0, 'FunctionModel', '{"fields": {"batch": false, "batch_size": null, "concurrency": 1, "description": "", "function": {"@function": {"digest": "7c3e91d96cf59bfa8617dfa8ccc135776e1b2b1cd79cc982eb3c1a1ee0d773ad", "local": false, "reference": "tests.models:picky", "text": "@model(retry_delay_s=0)\ndef picky(body: str) -> str:\n    \"\"\"Refuses what starts with \"bad\".\"\"\"\n    if note(body).startswith(\"bad\"):\n        raise ValueError(f\"refused: {body}\")\n    return body.upper()"}}, "max_attempts": 3, "output_type": null, "retry_delay_s": 0, "skip_null": true}}', '76746851aa73a7bedd0e495f227b1e8f373c487291403af3b41ac139bc6923db', '2026-11-30 18:57:53.249477+00');
INSERT INTO pinnacle.pinnacle_component VALUES ('listener', 'docs.loud', 0, 'pinnacle.components.listener:Listener', '{"fields": {"follow": "pinned", "key": "body", "model": {"@component": {"identifier": "picky", "kind": "model", "version": 0}}, "notify": null, "on_change": "keep", "output": "loud", "parameters": {}, "replicated": false, "select": {"schema": null, "table": "docs", "where": null}, "sweep_every_s": 3600.0, "unmatched": "keep"}}', '99fc3ef4f2dffc27e54d1636d27f3c3e9326ef0389701d14e0398b7fc51c61a3', '2026-11-30 18:57:53.261684+00');
INSERT INTO pinnacle.pinnacle_error VALUES (1, '5', 0, 'ValueError', 'refused: bad', 'Traceback of the error', 3, 1796065073.5235138);
INSERT INTO pinnacle.pinnacle_listener VALUES (1, 'docs.loud', 0, '{"id": "integer", "body": "text", "loud": "text"}', '', NULL, NULL, 1796065073.5398154, 1796065073.4980776, 4, NULL, NULL, false);
INSERT INTO pinnacle.pinnacle_migration VALUES ('0005');
INSERT INTO pinnacle.pinnacle_outbox_1 VALUES ('773', 1);
INSERT INTO pinnacle.pinnacle_outbox_1 VALUES ('773', 2);
INSERT INTO pinnacle.pinnacle_outbox_1 VALUES ('773', 4);
INSERT INTO pinnacle.pinnacle_output VALUES (1, '', 'docs', 'loud', 'picky', 0, '"body"', '"str"', true, 1, '2026-11-30 18:57:53.268429+00');
INSERT INTO pinnacle.pinnacle_state_1 VALUES (1, '\xe96360b694ed2d3a9bd2dec4eb490df6', 0, false);
INSERT INTO pinnacle.pinnacle_state_1 VALUES (2, '\x60bc0e0b0027661d37c991333d85b782', 0, false);
INSERT INTO pinnacle.pinnacle_state_1 VALUES (3, '\xea5a93fc17917f4fe0e66cd8d8deff0f', 0, false);
INSERT INTO pinnacle.pinnacle_state_1 VALUES (5, '\xf1a6278ff5ceaa84c9de1087b4d2c1bc', 0, true);
INSERT INTO public.docs VALUES (5, 'bad', NULL);
INSERT INTO public.docs VALUES (3, 'three', 'THREE');
INSERT INTO public.docs VALUES (1, 'uno', 'ONE');
INSERT INTO public.docs VALUES (4, 'four', NULL);
SELECT pg_catalog.setval('pinnacle.pinnacle_output_id_seq', 1, true);
SELECT pg_catalog.setval('pinnacle.pinnacle_work_1_place_seq', 4, true);
ALTER TABLE ONLY pinnacle.pinnacle_artifact_chunk
    ADD CONSTRAINT pinnacle_artifact_chunk_pkey PRIMARY KEY (sha256, "position");
ALTER TABLE ONLY pinnacle.pinnacle_artifact
    ADD CONSTRAINT pinnacle_artifact_pkey PRIMARY KEY (sha256);
ALTER TABLE ONLY pinnacle.pinnacle_batch
    ADD CONSTRAINT pinnacle_batch_pkey PRIMARY KEY (id);
ALTER TABLE ONLY pinnacle.pinnacle_cache
    ADD CONSTRAINT pinnacle_cache_pkey PRIMARY KEY (digest);
ALTER TABLE ONLY pinnacle.pinnacle_component_artifact
    ADD CONSTRAINT pinnacle_component_artifact_pkey PRIMARY KEY (kind, identifier, version, sha256);
ALTER TABLE ONLY pinnacle.pinnacle_component
    ADD CONSTRAINT pinnacle_component_pkey PRIMARY KEY (kind, identifier, version);
ALTER TABLE ONLY pinnacle.pinnacle_error
    ADD CONSTRAINT pinnacle_error_pkey PRIMARY KEY (output_id, key);
ALTER TABLE ONLY pinnacle.pinnacle_lease
    ADD CONSTRAINT pinnacle_lease_pkey PRIMARY KEY (id);
ALTER TABLE ONLY pinnacle.pinnacle_listener
    ADD CONSTRAINT pinnacle_listener_identifier_key UNIQUE (identifier);
ALTER TABLE ONLY pinnacle.pinnacle_listener
    ADD CONSTRAINT pinnacle_listener_pkey PRIMARY KEY (output_id);
ALTER TABLE ONLY pinnacle.pinnacle_metric
    ADD CONSTRAINT pinnacle_metric_pkey PRIMARY KEY (run, "position");
ALTER TABLE ONLY pinnacle.pinnacle_migration
    ADD CONSTRAINT pinnacle_migration_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY pinnacle.pinnacle_output
    ADD CONSTRAINT pinnacle_output_pkey PRIMARY KEY (id);
ALTER TABLE ONLY pinnacle.pinnacle_output
    ADD CONSTRAINT pinnacle_output_place UNIQUE (table_schema, table_name, name);
ALTER TABLE ONLY pinnacle.pinnacle_state_1
    ADD CONSTRAINT pinnacle_state_1_pkey PRIMARY KEY (k0);
ALTER TABLE ONLY pinnacle.pinnacle_training
    ADD CONSTRAINT pinnacle_training_pkey PRIMARY KEY (model);
ALTER TABLE ONLY pinnacle.pinnacle_upload
    ADD CONSTRAINT pinnacle_upload_pkey PRIMARY KEY (key);
ALTER TABLE ONLY pinnacle.pinnacle_usage
    ADD CONSTRAINT pinnacle_usage_pkey PRIMARY KEY (day, model, output);
ALTER TABLE ONLY pinnacle.pinnacle_work_1
    ADD CONSTRAINT pinnacle_work_1_k0_key UNIQUE (k0);
ALTER TABLE ONLY pinnacle.pinnacle_work_1
    ADD CONSTRAINT pinnacle_work_1_pkey PRIMARY KEY (place);
ALTER TABLE ONLY public.docs
    ADD CONSTRAINT docs_pkey PRIMARY KEY (id);
CREATE INDEX pinnacle_batch_output ON pinnacle.pinnacle_batch USING btree (output_id);
CREATE INDEX pinnacle_cache_age ON pinnacle.pinnacle_cache USING btree (cached_at, digest);
CREATE INDEX pinnacle_cache_expiry ON pinnacle.pinnacle_cache USING btree (expires_at);
CREATE INDEX pinnacle_lease_output ON pinnacle.pinnacle_lease USING btree (output_id);
CREATE INDEX pinnacle_lease_run ON pinnacle.pinnacle_lease USING btree (run);
CREATE INDEX pinnacle_outbox_1_xid ON pinnacle.pinnacle_outbox_1 USING btree (xid);
CREATE TRIGGER pinnacle_1_delete AFTER DELETE ON public.docs REFERENCING OLD TABLE AS pinnacle_rows FOR EACH STATEMENT EXECUTE FUNCTION pinnacle.pinnacle_capture_1_delete();
CREATE TRIGGER pinnacle_1_insert AFTER INSERT ON public.docs REFERENCING NEW TABLE AS pinnacle_rows FOR EACH STATEMENT EXECUTE FUNCTION pinnacle.pinnacle_capture_1_insert();
CREATE TRIGGER pinnacle_1_truncate AFTER TRUNCATE ON public.docs FOR EACH STATEMENT EXECUTE FUNCTION pinnacle.pinnacle_capture_1_truncate();
CREATE TRIGGER pinnacle_1_update AFTER UPDATE ON public.docs FOR EACH ROW WHEN (
        CASE
            WHEN (((old.id IS DISTINCT FROM new.id) OR (old.body IS DISTINCT FROM new.body) OR (old.loud IS DISTINCT FROM new.loud)) AND (COALESCE(current_setting('pinnacle.writer'::text, true), ''::text) <> '1'::text)) THEN pinnacle.pinnacle_capture_1_row(old.id, new.id)
            ELSE false
        END) EXECUTE FUNCTION pinnacle.pinnacle_capture_1_never();
