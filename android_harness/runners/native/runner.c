#include "runner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpus.h"
#include "engine.h"
#include "lifetime.h"
#include "report.h"

enum { EXIT_OK = 0, EXIT_USAGE = 2, EXIT_FAILED = 3 };

/* Seconds that all but the timed calls may take; tests have no half minute to wait. */
#ifndef SPARE_SECS
#define SPARE_SECS 30
#endif

/* Samples there is room for when only seconds are asked; timing ends when it is full. */
enum { LEAST_ROOM = 1 << 20 };

struct run {
    const struct options *options;
    struct pack pack;
    struct engine *engine;
    struct answers answers;
    struct sensors sensors;
    struct report report;
    struct failure failure;
};

static double ms_since(int64_t start_ns)
{
    return (double)(now_ns() - start_ns) / 1e6;
}

/* Stay on the CPUs asked for, before any thread of the engine is born. */
static int settle(struct run *run)
{
    const char *asked = run->options->cpus;
    cpu_set_t cpus;

    if (asked != NULL) {
        if (!cpus_parse(asked, &cpus))
            return fail(&run->failure, "cpus", "'%s' is no list of CPUs such as 4-7 or 0,2", asked);
        if (sched_setaffinity(0, sizeof cpus, &cpus) != 0)
            return fail(&run->failure, "cpus", "cannot stay on %s: %s", asked, strerror(errno));
    }
    if (sched_getaffinity(0, sizeof cpus, &cpus) != 0 ||
        !cpus_format(&cpus, run->report.cpus, sizeof run->report.cpus))
        return fail(&run->failure, "cpus", "the CPUs of this process cannot be read");
    if (sensors_open(&run->sensors, &cpus) != 0)
        return fail(&run->failure, "cpus", "no memory");
    return 0;
}

static int read_files(struct run *run)
{
    const struct options *options = run->options;

    if (pack_open(&run->pack, options->pack, &run->failure) != 0)
        return -1;
    if (options->timed > run->pack.calls)
        return fail(&run->failure, "pack", "it holds %u calls, not the %u to be timed",
                    run->pack.calls, options->timed);
    if (sha256_file(options->model, run->report.model_sha256) != 0) {
        run->report.model_sha256[0] = '\0';
        return fail(&run->failure, "model", "cannot read %s: %s", options->model, strerror(errno));
    }
    return 0;
}

/* From nothing to the answer of the first call, with the time of each step. */
static int start_engine(struct run *run)
{
    const struct options *options = run->options;
    struct report *report = &run->report;
    int64_t start_ns;

    report->rss_start = read_kb("/proc/self/status", "VmRSS");
    start_ns = now_ns();
    if (engine_open(run->engine, options, &run->failure) != 0)
        return -1;
    report->times.dlopen = ENGINE.takes_library ? ms_since(start_ns) : 0;
    report->version = engine_version(run->engine);
    start_ns = now_ns();
    if (engine_load(run->engine, options, &run->failure) != 0)
        return -1;
    report->times.load = ms_since(start_ns);
    report->telemetry_disabled = engine_telemetry_disabled(run->engine);
    start_ns = now_ns();
    if (engine_init(run->engine, &run->failure) != 0)
        return -1;
    report->times.init = ms_since(start_ns);
    report->backend = engine_backend(run->engine);
    report->threads = engine_threads(run->engine);
    report->rss_loaded = read_kb("/proc/self/status", "VmRSS");
    if (engine_prepare(run->engine, &run->pack, &run->failure) != 0)
        return -1;
    start_ns = now_ns();
    if (engine_run(run->engine, 0, &run->failure) != 0)
        return -1;
    report->times.first = ms_since(start_ns);
    report->times.known = true;
    engine_release(run->engine);
    return 0;
}

/* Run one call and write what came of it; a refusal is an answer too. Returns -1 with errno. */
static int answer(struct run *run, uint32_t call, struct tensor *returned)
{
    struct failure refusal;
    int status;

    if (engine_run(run->engine, call, &refusal) == 0 &&
        engine_collect(run->engine, returned, &refusal) == 0)
        status = answers_add(&run->answers, returned);
    else
        status = answers_refuse(&run->answers, refusal.message);
    engine_release(run->engine);
    return status;
}

static int answer_all(struct run *run)
{
    uint32_t outputs;
    const struct declared *declared = engine_outputs(run->engine, &outputs);
    struct tensor *returned = calloc(outputs > 0 ? outputs : 1, sizeof *returned);
    int status;

    if (returned == NULL)
        return fail(&run->failure, "outputs", "no memory");
    status = answers_open(&run->answers, run->options->outputs, declared, outputs, run->pack.calls);
    for (uint32_t call = 0; status == 0 && call < run->pack.calls; call++)
        status = answer(run, call, returned);
    if (status == 0)
        status = answers_publish(&run->answers);
    if (status != 0)
        (void)fail(&run->failure, "outputs", "cannot write %s: %s", run->options->outputs,
                   strerror(errno));
    else
        run->report.answers = &run->answers;
    free(returned);
    return status;
}

static int warm_up(struct run *run)
{
    for (uint32_t i = 0; i < run->options->warmup; i++) {
        if (engine_run(run->engine, i % run->options->timed, &run->failure) != 0)
            return -1;
        engine_release(run->engine);
    }
    return 0;
}

/* Memory for all samples and blocks, so that none is asked for while time is taken. */
static int make_room(struct run *run, size_t *room)
{
    const struct options *options = run->options;
    struct report *report = &run->report;

    *room = options->iters > LEAST_ROOM ? options->iters : LEAST_ROOM;
    report->latency_ns = calloc(*room, sizeof *report->latency_ns);
    report->blocks = calloc(*room / options->block + 1, sizeof *report->blocks);
    if (report->latency_ns == NULL || report->blocks == NULL)
        return fail(&run->failure, "timing", "no memory for %zu samples", *room);
    return 0;
}

static int time_call(struct run *run)
{
    struct report *report = &run->report;
    const uint32_t call = (uint32_t)(report->latencies % run->options->timed);
    int64_t start_ns, end_ns;

    start_ns = now_ns();
    if (engine_run(run->engine, call, &run->failure) != 0)
        return -1;
    end_ns = now_ns();
    engine_release(run->engine);
    report->latency_ns[report->latencies++] = end_ns - start_ns;
    return 0;
}

static bool enough(const struct run *run, size_t room, int64_t start_ns)
{
    const struct options *options = run->options;
    const double secs = ms_since(start_ns) / 1e3;

    if (run->report.latencies == room || secs >= options->max_secs)
        return true;
    return run->report.latencies >= options->iters && secs >= options->min_secs;
}

static int time_calls(struct run *run)
{
    struct report *report = &run->report;
    bool done = false;
    int64_t start_ns;
    size_t room;

    if (make_room(run, &room) != 0)
        return -1;
    start_ns = now_ns();
    while (!done) {
        struct block *block = &report->blocks[report->block_count++];

        sensors_read(&run->sensors, &block->reading);
        if (report->block_count == 1)
            start_ns = now_ns();
        block->at_ns = now_ns() - start_ns;
        while (!done && block->calls < run->options->block) {
            if (time_call(run) != 0)
                return -1;
            block->calls++;
            done = enough(run, room, start_ns);
        }
    }
    return 0;
}

/* What the engine says about a call is put under the stage it happened in. */
static int at_stage(struct run *run, const char *stage, int status)
{
    if (status != 0 && strcmp(run->failure.stage, "run") == 0)
        run->failure.stage = stage;
    return status;
}

static int execute(struct run *run)
{
    if (run->options->tether && tether(&run->failure) != 0)
        return -1;
    run->engine = engine_new();
    if (run->engine == NULL)
        return fail(&run->failure, "start", "no memory");
    if (settle(run) != 0 || read_files(run) != 0 || at_stage(run, "first", start_engine(run)) != 0)
        return -1;
    if (run->options->outputs != NULL && answer_all(run) != 0)
        return -1;
    if (run->options->iters > 0 && (at_stage(run, "warmup", warm_up(run)) != 0 ||
                                    at_stage(run, "timing", time_calls(run)) != 0))
        return -1;
    run->report.rss_peak = read_kb("/proc/self/status", "VmHWM");
    run->report.pss = read_kb("/proc/self/smaps_rollup", "Pss");
    return 0;
}

/* Samples of a run that failed are none: nobody shall average them. */
static void drop_samples(struct report *report)
{
    report->latencies = 0;
    report->block_count = 0;
}

static int finish(struct run *run, int status)
{
    if (status != 0)
        drop_samples(&run->report);
    if (report_write(&run->report, run->options, status == 0 ? NULL : &run->failure) != 0) {
        fprintf(stderr, "cannot write %s: %s\n", run->options->result, strerror(errno));
        status = -1;
    }
    if (status != 0 && run->failure.stage != NULL)
        fprintf(stderr, "%s: %s\n", run->failure.stage, run->failure.message);
    answers_discard(&run->answers);
    free(run->report.latency_ns);
    free(run->report.blocks);
    sensors_close(&run->sensors);
    engine_close(run->engine);
    pack_close(&run->pack);
    return status == 0 ? EXIT_OK : EXIT_FAILED;
}

static bool is_provider(const char *asked)
{
    for (const char *const *known = ENGINE.providers; *known != NULL; known++)
        if (strcmp(*known, asked) == 0)
            return true;
    fprintf(stderr, "--ep %s: %s has no such provider here\n", asked, ENGINE.name);
    return false;
}

int run_program(int count, char **words)
{
    struct options options;
    struct run run = {.options = &options,
                      .report = {.rss_start = UNREAD,
                                 .rss_loaded = UNREAD,
                                 .rss_peak = UNREAD,
                                 .pss = UNREAD}};

    if (parse_options(count, words, &options) != 0 || !is_provider(options.ep))
        return EXIT_USAGE;
    if ((options.library != NULL) != ENGINE.takes_library) {
        fprintf(stderr, "--lib is %s: %s is %s\n", ENGINE.takes_library ? "missing" : "not taken",
                ENGINE.name, ENGINE.takes_library ? "opened by name" : "linked");
        return EXIT_USAGE;
    }
    limit_lifetime(options.max_secs + SPARE_SECS);
    return finish(&run, execute(&run));
}
