BEGIN TRANSACTION;
CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT, "loud" TEXT);
INSERT INTO "docs" VALUES(1,'uno','ONE');
INSERT INTO "docs" VALUES(3,'three','THREE');
INSERT INTO "docs" VALUES(4,'four',NULL);
INSERT INTO "docs" VALUES(5,'bad',NULL);
CREATE TABLE pinnacle_artifact (
	sha256 TEXT NOT NULL, 
	size BIGINT NOT NULL, "key" TEXT, 
	PRIMARY KEY (sha256)
);
CREATE TABLE pinnacle_artifact_chunk (
	sha256 TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	data BLOB NOT NULL, 
	PRIMARY KEY (sha256, position)
);
CREATE TABLE pinnacle_batch (
	id TEXT NOT NULL, 
	output_id INTEGER NOT NULL, 
	model TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	parameters TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	items TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE pinnacle_cache (
	digest BLOB NOT NULL, 
	cached_at DOUBLE NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (digest)
);
CREATE TABLE pinnacle_component (
	kind TEXT NOT NULL, 
	identifier TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	type TEXT NOT NULL, 
	body TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (kind, identifier, version)
);
INSERT INTO "pinnacle_component" VALUES('model','picky',0,'FunctionModel','{"fields": {"batch": false, "batch_size": null, "concurrency": 1, "description": "", "function": {"@function": {"digest": "7c3e91d96cf59bfa8617dfa8ccc135776e1b2b1cd79cc982eb3c1a1ee0d773ad", "local": false, "reference": "tests.models:picky", "text": "@model(retry_delay_s=0)\ndef picky(body: str) -> str:\n    \"\"\"Refuses what starts with \"bad\".\"\"\"\n    if note(body).startswith(\"bad\"):\n        raise ValueError(f\"refused: {body}\")\n    return body.upper()"}}, "max_attempts": 3, "output_type": null, "retry_delay_s": 0, "skip_null": true}}','76746851aa73a7bedd0e495f227b1e8f373c487291403af3b41ac139bc6923db','2026-11-30 18:57:47.537199');
INSERT INTO "pinnacle_component" VALUES('listener','docs.loud',0,'pinnacle.components.listener:Listener','{"fields": {"follow": "pinned", "key": "body", "model": {"@component": {"identifier": "picky", "kind": "model", "version": 0}}, "notify": null, "on_change": "keep", "output": "loud", "parameters": {}, "replicated": false, "select": {"schema": null, "table": "docs", "where": null}, "sweep_every_s": 3600.0, "unmatched": "keep"}}','99fc3ef4f2dffc27e54d1636d27f3c3e9326ef0389701d14e0398b7fc51c61a3','2026-11-30 18:57:47.544480');
CREATE TABLE pinnacle_component_artifact (
	kind TEXT NOT NULL, 
	identifier TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	sha256 TEXT NOT NULL, 
	PRIMARY KEY (kind, identifier, version, sha256)
);
CREATE TABLE pinnacle_error (
	output_id INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	error TEXT NOT NULL, 
	message TEXT NOT NULL, 
	traceback TEXT NOT NULL, 
	attempts INTEGER NOT NULL, 
	failed_at DOUBLE NOT NULL, 
	PRIMARY KEY (output_id, "key")
);
INSERT INTO "pinnacle_error" VALUES(1,'5',0,'ValueError','refused: bad','Traceback of the error',3,1.79606506767437958714e+09);
CREATE TABLE pinnacle_lease (
	id TEXT NOT NULL, 
	output_id INTEGER NOT NULL, 
	run TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	keys TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "pinnacle_lease" VALUES('worker',0,'e914a4efd63a4cc8b0cd0783ffd07038','elsewhere:1',1.79606506771172785754e+09,'[]');
CREATE TABLE pinnacle_listener (
	output_id INTEGER NOT NULL, 
	identifier TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	shape TEXT NOT NULL, 
	position TEXT DEFAULT '' NOT NULL, 
	paused TEXT, 
	sweep TEXT, 
	swept_at DOUBLE DEFAULT '0' NOT NULL, 
	folded_at DOUBLE DEFAULT '0' NOT NULL, 
	processed BIGINT DEFAULT '0' NOT NULL, 
	error TEXT, 
	error_at DOUBLE, 
	is_writing BOOLEAN DEFAULT 0 NOT NULL, 
	PRIMARY KEY (output_id), 
	UNIQUE (identifier)
);
INSERT INTO "pinnacle_listener" VALUES(1,'docs.loud',0,'{"id": "INTEGER", "body": "TEXT", "loud": "TEXT"}','4',NULL,NULL,1.79606506770381140706e+09,1.7960650676318223476e+09,4,NULL,NULL,0);
CREATE TABLE pinnacle_metric (
	run TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	entry TEXT NOT NULL, 
	PRIMARY KEY (run, position)
);
CREATE TABLE pinnacle_migration (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT pinnacle_migration_pkc PRIMARY KEY (version_num)
);
INSERT INTO "pinnacle_migration" VALUES('0005');
CREATE TABLE "pinnacle_outbox_1" (id INTEGER PRIMARY KEY, k0 INTEGER);
INSERT INTO "pinnacle_outbox_1" VALUES(1,1);
INSERT INTO "pinnacle_outbox_1" VALUES(2,2);
INSERT INTO "pinnacle_outbox_1" VALUES(3,4);
CREATE TABLE pinnacle_output (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	table_schema TEXT DEFAULT '' NOT NULL, 
	table_name TEXT NOT NULL, 
	name TEXT NOT NULL, 
	model TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	fields TEXT NOT NULL, 
	type TEXT NOT NULL, 
	created_column BOOLEAN NOT NULL, 
	released BIGINT DEFAULT '0' NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pinnacle_output_place UNIQUE (table_schema, table_name, name)
);
INSERT INTO "pinnacle_output" VALUES(1,'','docs','loud','picky',0,'"body"','"str"',1,1,'2026-11-30 18:57:47.550575');
CREATE TABLE pinnacle_state_1 (
	k0 INTEGER NOT NULL, 
	fingerprint BLOB NOT NULL, 
	version INTEGER NOT NULL, 
	failed BOOLEAN NOT NULL, 
	PRIMARY KEY (k0)
);
INSERT INTO "pinnacle_state_1" VALUES(1,X'1AF6590B625D3232F20C534379830D5E',0,0);
INSERT INTO "pinnacle_state_1" VALUES(2,X'9F96690A138A273F0FE3B6394F12F2A4',0,0);
INSERT INTO "pinnacle_state_1" VALUES(3,X'5BA6CFCCA9F4BD5830DACD9565546ABF',0,0);
INSERT INTO "pinnacle_state_1" VALUES(5,X'1B53BE1149F60642D73CE2E901B8C74C',0,1);
CREATE TABLE pinnacle_training (
	model TEXT NOT NULL, 
	token TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	PRIMARY KEY (model)
);
CREATE TABLE pinnacle_upload (
	"key" TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	PRIMARY KEY ("key")
);
CREATE TABLE pinnacle_usage (
	day TEXT NOT NULL, 
	model TEXT NOT NULL, 
	output TEXT NOT NULL, 
	calls BIGINT NOT NULL, 
	failed BIGINT NOT NULL, 
	retried BIGINT NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	cached BIGINT NOT NULL, 
	cost DOUBLE NOT NULL, 
	PRIMARY KEY (day, model, output)
);
CREATE TABLE "pinnacle_work_1" (place INTEGER PRIMARY KEY, k0 INTEGER NOT NULL, revision INTEGER NOT NULL, at REAL NOT NULL, UNIQUE (k0));
CREATE INDEX pinnacle_lease_output ON pinnacle_lease (output_id);
CREATE INDEX pinnacle_lease_run ON pinnacle_lease (run);
CREATE INDEX pinnacle_cache_age ON pinnacle_cache (cached_at, digest);
CREATE INDEX pinnacle_cache_expiry ON pinnacle_cache (expires_at);
CREATE INDEX pinnacle_batch_output ON pinnacle_batch (output_id);
CREATE TRIGGER "pinnacle_1_insert" AFTER INSERT ON "docs" BEGIN INSERT INTO "pinnacle_outbox_1" (k0) VALUES (new."id"); END;
CREATE TRIGGER "pinnacle_1_update" AFTER UPDATE ON "docs" WHEN (old."body" IS NOT new."body" COLLATE BINARY OR typeof(old."body") <> typeof(new."body")) OR (old."id" IS NOT new."id" COLLATE BINARY OR typeof(old."id") <> typeof(new."id")) OR ((old."loud" IS NOT new."loud" COLLATE BINARY OR typeof(old."loud") <> typeof(new."loud")) AND NOT EXISTS (SELECT 1 FROM "pinnacle_listener" WHERE output_id = 1 AND is_writing)) BEGIN INSERT INTO "pinnacle_outbox_1" (k0) VALUES (new."id"); END;
CREATE TRIGGER "pinnacle_1_move" AFTER UPDATE ON "docs" WHEN (old."id" IS NOT new."id" COLLATE BINARY OR typeof(old."id") <> typeof(new."id")) BEGIN INSERT INTO "pinnacle_outbox_1" (k0) VALUES (old."id"); END;
CREATE TRIGGER "pinnacle_1_delete" AFTER DELETE ON "docs" BEGIN INSERT INTO "pinnacle_outbox_1" (k0) VALUES (old."id"); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('pinnacle_output',1);
COMMIT;
