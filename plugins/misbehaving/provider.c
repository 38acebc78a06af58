/* A provider that does one thing wrong, for tests of its host: `fault` in its configuration says what, and it does it in
 * `provision` and in `exec`; `open` hangs where it is opened. All else is answered as by a provider that has no sandbox. `report`, a path, is where it notes
 * what its host answered to frames that make no sense.
 */
#define _GNU_SOURCE
#include "alpine_provider.h"
#include "../c/json.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#define ABOUT "\"name\":\"misbehaving\",\"version\":\"0.1.0\""

__attribute__((used, section(".alpine.provider"))) static const char MANIFEST[] =
    "{" ABOUT ",\"abi_min\":1,\"abi_max\":1,\"sdk\":\"alpine_provider.h\",\"panic\":\"unwind\"}";

static const char DESCRIBE[] =
    "{" ABOUT ",\"isolation\":{\"tier\":\"none\"},\"methods\":"
    "[\"describe\",\"provision\",\"inspect\",\"list\",\"exec\",\"stop\",\"destroy\"]}";

typedef struct provider {
  alpine_port host;
  char *fault, *report;
} provider;

static int32_t say(provider *it, uint64_t id, uint32_t kind, uint32_t code, const char *said) {
  return it->host.send(it->host.ctx, id, kind, code, (const uint8_t *)said, strlen(said));
}

static void fail(provider *it, uint64_t id) {
  say(it, id, ALPINE_ERR, ALPINE_ERROR_NO_SPACE, "as it was asked to");
}

static void note(provider *it, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(provider *it, const char *format, ...) {
  FILE *file = it->report ? fopen(it->report, "a") : NULL;
  if (!file) return;
  va_list arguments;
  va_start(arguments, format);
  vfprintf(file, format, arguments);
  va_end(arguments);
  fclose(file);
}

/* ---- the faults ---- */

static void segfault(provider *it, uint64_t id) {
  (void)it, (void)id;
  volatile int *nowhere = NULL;
  *nowhere = 1;
}

static void abort_all(provider *it, uint64_t id) {
  (void)it, (void)id;
  abort();
}

static void exit_zero(provider *it, uint64_t id) {
  (void)it, (void)id;
  exit(0);
}

static void hang(provider *it, uint64_t id) {
  (void)it, (void)id;
  for (;;) pause();
}

static void print(provider *it, uint64_t id) {
  puts("{\"schema_version\":\"v1\",\"state\":\"ready\"}");
  fputs("and this on the other one\n", stderr);
  fflush(stdout);
  fail(it, id);
}

static void flood(provider *it, uint64_t id) {
  static char chunk[ALPINE_MAX_CHUNK];
  for (int i = 0; i < 100000; i++) {
    say(it, id, ALPINE_EVENT, ALPINE_EVENT_PROGRESS, "{\"what\":\"flooding\",\"done\":1}");
    say(it, id, ALPINE_EVENT, ALPINE_EVENT_WARNING, "a warning of the flood");
    say(it, id, ALPINE_LOG, 2, "{\"message\":\"a line of the flood\"}");
  }
  int taken = 0;
  /* Nobody is granted more without end: what is not taken has to be kept here. */
  while (taken < 1000000 && it->host.send(it->host.ctx, id, ALPINE_EVENT, ALPINE_EVENT_STDOUT, (const uint8_t *)chunk,
                                          sizeof chunk) == ALPINE_SENT_OK) {
    taken++;
  }
  note(it, "stream stopped: %d\n", taken < 1000000);
  fail(it, id);
}

/* More warnings than anybody keeps for a host that does not read, which it can't while this runs; and then the answer. */
static void burst(provider *it, uint64_t id) {
  static char warning[1000 * 1000];
  memset(warning, 'w', sizeof warning - 1);
  int warnings = 0;
  while (warnings < 100 && say(it, id, ALPINE_EVENT, ALPINE_EVENT_WARNING, warning) == ALPINE_SENT_OK) warnings++;
  note(it, "refused: %d\n", warnings < 100);
  note(it, "answer: %d\n", say(it, id, ALPINE_ERR, ALPINE_ERROR_NO_SPACE, "as it was asked to"));
  note(it, "again: %d\n", say(it, id, ALPINE_OK, 0, "{\"exited\":0}"));
}

static void garbage(provider *it, uint64_t id) {
  static const uint8_t bytes[ALPINE_MAX_CONTROL + 1];
  alpine_port *host = &it->host;
  note(it, "unknown kind: %d\n", say(it, id, 99, 0, "x"));
  note(it, "a kind of the host's: %d\n", say(it, id, ALPINE_CALL, 1, "{}"));
  note(it, "unknown call: %d\n", say(it, id + 1000, ALPINE_OK, 0, "{}"));
  note(it, "too big: %d\n", host->send(host->ctx, id, ALPINE_EVENT, ALPINE_EVENT_STDOUT, bytes, ALPINE_MAX_CHUNK + 1));
  note(it, "far too big: %d\n", host->send(host->ctx, id, ALPINE_OK, 0, bytes, SIZE_MAX));
  note(it, "no bytes: %d\n", host->send(host->ctx, id, ALPINE_OK, 0, NULL, 1));
}

static void oversized(provider *it, uint64_t id) {
  static const uint8_t bytes[ALPINE_MAX_CONTROL + 1];
  it->host.send(it->host.ctx, id, ALPINE_OK, 0, bytes, sizeof bytes);
}

static void no_json(provider *it, uint64_t id) { say(it, id, ALPINE_OK, 0, "\xff{\"forced\":"); }

static void twice(provider *it, uint64_t id) {
  note(it, "first: %d\n", say(it, id, ALPINE_ERR, ALPINE_ERROR_NO_SPACE, "as it was asked to"));
  note(it, "second: %d\n", say(it, id, ALPINE_OK, 0, "{\"exited\":0}"));
  note(it, "event: %d\n", say(it, id, ALPINE_EVENT, ALPINE_EVENT_STDOUT, "late"));
}

static void closes(provider *it, uint64_t id) {
  (void)id;
  it->host.close(it->host.ctx, 0);
}

static void never(provider *it, uint64_t id) { (void)it, (void)id; }

typedef struct late {
  provider *it;
  uint64_t id;
} late;

static pthread_mutex_t closing = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t closed = PTHREAD_COND_INITIALIZER;
static int is_closed;

static void *answer_late(void *argument) {
  late *what = argument;
  pthread_mutex_lock(&closing);
  while (!is_closed) pthread_cond_wait(&closed, &closing);
  pthread_mutex_unlock(&closing);
  usleep(50000); /* the host has come back from `close` by then */
  note(what->it, "after close: %d\n", say(what->it, what->id, ALPINE_OK, 0, "{\"exited\":0}"));
  free(what);
  return NULL;
}

static void after_close(provider *it, uint64_t id) {
  late *what = malloc(sizeof *what);
  if (!what) abort();
  *what = (late){it, id};
  pthread_t thread;
  if (pthread_create(&thread, NULL, answer_late, what)) abort();
  pthread_detach(thread);
  note(it, "begun\n");
}

static const struct {
  const char *name;
  void (*work)(provider *, uint64_t);
} FAULTS[] = {
    {"segfault", segfault}, {"abort", abort_all}, {"exit", exit_zero}, {"hang", hang},   {"print", print},
    {"flood", flood},       {"garbage", garbage}, {"oversized", oversized}, {"no-json", no_json}, {"twice", twice},    {"never", never}, {"after-close", after_close},
    {"burst", burst},       {"closes", closes},
};

/* ---- the port ---- */

static int32_t take(void *ctx, uint64_t id, uint32_t kind, uint32_t code, const uint8_t *data, size_t len) {
  provider *it = ctx;
  (void)data, (void)len;
  if (kind == ALPINE_PING) return say(it, id, ALPINE_PONG, code, "");
  if (kind != ALPINE_CALL) return ALPINE_SENT_OK;
  switch (code) {
    case ALPINE_METHOD_DESCRIBE: return say(it, id, ALPINE_OK, 0, DESCRIBE), ALPINE_SENT_OK;
    case ALPINE_METHOD_INSPECT: return say(it, id, ALPINE_OK, 0, "{\"state\":\"missing\"}"), ALPINE_SENT_OK;
    case ALPINE_METHOD_LIST: return say(it, id, ALPINE_OK, 0, "{\"sandboxes\":[]}"), ALPINE_SENT_OK;
    case ALPINE_METHOD_STOP: return say(it, id, ALPINE_OK, 0, "{\"forced\":false}"), ALPINE_SENT_OK;
    case ALPINE_METHOD_DESTROY: return say(it, id, ALPINE_OK, 0, "{}"), ALPINE_SENT_OK;
    case ALPINE_METHOD_PROVISION:
    case ALPINE_METHOD_EXEC: break;
    default: return ALPINE_SENT_UNSUPPORTED;
  }
  if (it->fault && !strcmp(it->fault, "closed")) return ALPINE_SENT_CLOSED;
  for (size_t i = 0; i < sizeof FAULTS / sizeof *FAULTS; i++) {
    if (it->fault && !strcmp(it->fault, FAULTS[i].name)) return FAULTS[i].work(it, id), ALPINE_SENT_OK;
  }
  fail(it, id);
  return ALPINE_SENT_OK;
}

static int32_t end(void *ctx, uint32_t deadline_ms) {
  (void)ctx, (void)deadline_ms;
  pthread_mutex_lock(&closing);
  is_closed = 1;
  pthread_cond_broadcast(&closed);
  pthread_mutex_unlock(&closing);
  return ALPINE_SENT_OK;
}

static int32_t open_provider(uint32_t abi, const alpine_port *host, const uint8_t *config, size_t len, alpine_port *out) {
  provider *it = calloc(1, sizeof *it);
  if (abi != 1 || !it) return ALPINE_SENT_UNSUPPORTED;
  const json table = json_get(json_parse(config, len), "config");
  it->host = *host;
  it->fault = json_text(json_get(table, "fault"));
  it->report = json_text(json_get(table, "report"));
  if (it->fault && !strcmp(it->fault, "open")) {
    note(it, "opening\n");
    for (;;) pause();
  }
  *out = (alpine_port){.struct_size = sizeof *out, .abi = 1, .ctx = it, .send = take, .close = end};
  return ALPINE_SENT_OK;
}

const alpine_provider *alpine_provider_v1(const alpine_host_info *host) {
  static const alpine_provider provider = {
      .magic = ALPINE_MAGIC, .struct_size = sizeof provider, .abi_min = 1, .abi_max = 1,
      .name = "misbehaving", .version = "0.1.0", .build = "cc " __VERSION__, .open = open_provider,
  };
  return host && host->magic == ALPINE_MAGIC ? &provider : NULL;
}
