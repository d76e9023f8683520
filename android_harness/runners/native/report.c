#include "report.h"

#include <errno.h>
#include <unistd.h>

#include "engine.h"
#include "json.h"

#define SCHEMA "swipe-export/runner/1"

static void put_text(struct json *json, const char *key, const char *value)
{
    json_key(json, key);
    json_text(json, value);
}

static void put_integer(struct json *json, const char *key, int64_t value)
{
    json_key(json, key);
    json_integer(json, value);
}

static void put_reading(struct json *json, const char *key, long value)
{
    json_key(json, key);
    if (value == UNREAD)
        json_null(json);
    else
        json_integer(json, value);
}

static void put_real(struct json *json, const char *key, double value)
{
    json_key(json, key);
    json_real(json, value);
}

static void put_engine(struct json *json, const struct report *report)
{
    json_key(json, "engine");
    if (report->version == NULL) {
        json_null(json);
        return;
    }
    json_open(json, '{');
    put_text(json, "name", ENGINE.name);
    put_text(json, "version", report->version);
    put_text(json, "backend", report->backend == NULL ? "" : report->backend);
    json_close(json, '}');
}

static void put_cpus(struct json *json, const struct report *report, const char *asked)
{
    json_key(json, "cpus");
    json_open(json, '{');
    put_text(json, "asked", asked);
    put_text(json, "got", report->cpus);
    json_close(json, '}');
}

static void put_times(struct json *json, const struct times *times)
{
    json_key(json, "times_ms");
    if (!times->known) {
        json_null(json);
        return;
    }
    json_open(json, '{');
    put_real(json, "dlopen", times->dlopen);
    put_real(json, "load", times->load);
    put_real(json, "init", times->init);
    put_real(json, "first", times->first);
    json_close(json, '}');
}

static void put_samples(struct json *json, const struct report *report)
{
    json_key(json, "latency_ns");
    json_open(json, '[');
    for (size_t i = 0; i < report->latencies; i++)
        json_integer(json, report->latency_ns[i]);
    json_close(json, ']');
    json_key(json, "blocks");
    json_open(json, '[');
    for (size_t i = 0; i < report->block_count; i++) {
        const struct block *block = &report->blocks[i];

        json_open(json, '{');
        put_real(json, "at_ms", (double)block->at_ns / 1e6);
        put_integer(json, "calls", block->calls);
        put_reading(json, "temp_mc", block->reading.temp_mc);
        put_reading(json, "khz_cur", block->reading.khz_cur);
        put_reading(json, "khz_max", block->reading.khz_max);
        put_reading(json, "cpu", block->reading.cpu);
        json_close(json, '}');
    }
    json_close(json, ']');
}

static void put_memory(struct json *json, const struct report *report)
{
    json_key(json, "rss_kb");
    json_open(json, '{');
    put_reading(json, "start", report->rss_start);
    put_reading(json, "loaded", report->rss_loaded);
    put_reading(json, "peak", report->rss_peak);
    json_close(json, '}');
    put_reading(json, "pss_kb", report->pss);
}

static void put_answers(struct json *json, const struct answers *answers)
{
    json_key(json, "outputs");
    if (answers == NULL) {
        json_null(json);
        return;
    }
    json_open(json, '{');
    put_integer(json, "bytes", (int64_t)answers->file.bytes);
    put_text(json, "sha256", answers->sha256);
    put_integer(json, "calls", answers->calls);
    put_integer(json, "refused", answers->refused);
    json_close(json, '}');
}

static void put_report(struct json *json, const struct report *report,
                       const struct options *options, const struct failure *failed)
{
    json_open(json, '{');
    put_text(json, "schema_name", SCHEMA);
    put_text(json, "nonce", options->nonce);
    json_key(json, "ok");
    json_bool(json, failed == NULL);
    put_text(json, "stage", failed == NULL ? "done" : failed->stage);
    put_text(json, "error", failed == NULL ? "" : failed->message);
    put_engine(json, report);
    put_text(json, "model_sha256", report->model_sha256[0] == '\0' ? NULL : report->model_sha256);
    put_integer(json, "pid", getpid());
    put_reading(json, "threads", report->threads == 0 ? UNREAD : (long)report->threads);
    put_cpus(json, report, options->cpus);
    put_times(json, &report->times);
    put_samples(json, report);
    put_memory(json, report);
    put_answers(json, report->answers);
    json_key(json, "telemetry_disabled");
    json_bool(json, report->telemetry_disabled);
    json_key(json, "complete");
    json_bool(json, true);
    json_close(json, '}');
}

int report_write(const struct report *report, const struct options *options,
                 const struct failure *failed)
{
    struct json json = {0};
    struct new_file file = {0};
    int status = -1;

    put_report(&json, report, options, failed);
    if (json.failed)
        errno = ENOMEM;
    else if (new_file_open(&file, options->result) == 0 &&
             new_file_write(&file, json.text, json.size) == 0)
        status = new_file_publish(&file);
    json_free(&json);
    new_file_discard(&file);
    return status;
}
