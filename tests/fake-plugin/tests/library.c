/* A library for each way in which one may be wrong before it is called, and one that tries what `send` takes. */
#define _GNU_SOURCE
#include "alpine_provider.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef THE_MAGIC
#define THE_MAGIC ALPINE_MAGIC
#endif
#ifndef THE_SIZE
#define THE_SIZE sizeof(alpine_provider)
#endif
#ifndef THE_ABI
#define THE_ABI 1
#endif
#ifndef THE_FLAGS
#define THE_FLAGS 0
#endif
#ifndef THE_PORT_SIZE
#define THE_PORT_SIZE sizeof(alpine_port)
#endif
#ifndef THE_PORT_ABI
#define THE_PORT_ABI abi
#endif
#ifndef THE_OPEN
#define THE_OPEN opened
#endif

static alpine_port host;

static int32_t tell(uint64_t call, uint32_t kind, uint32_t code, const char *data, size_t len) {
  return host.send(host.ctx, call, kind, code, (const uint8_t *)data, len);
}

/* Answers every call with what `send` returned to each of its breaches, as the provider's name. */
static int32_t take(void *ctx, uint64_t call, uint32_t kind, uint32_t code, const uint8_t *data, size_t len) {
  static char large[ALPINE_MAX_CONTROL + 1];
  char reply[512];
  (void)ctx, (void)code, (void)data, (void)len;
  if (kind == ALPINE_CANCEL) tell(call, ALPINE_ERR, ALPINE_ERROR_CANCELLED, "x", 1);
  if (kind != ALPINE_CALL) return ALPINE_SENT_OK;
  /* A frame that can't be taken ends its call: these are of another one. */
  const int32_t unknown = tell(call + 1, 99, 0, NULL, 0), host_only = tell(call, ALPINE_CALL, 1, NULL, 0);
  const int32_t too_big = tell(call + 1, ALPINE_OK, 0, large, sizeof large);
  const int32_t chunk = tell(call + 1, ALPINE_EVENT, ALPINE_EVENT_STDOUT, large, ALPINE_MAX_CHUNK + 1);
  const int32_t null = tell(call, ALPINE_OK, 0, NULL, 5), stranger = tell(call + 1, ALPINE_OK, 0, "{}", 2);
  int32_t credit = ALPINE_SENT_OK;
  int chunks = 0;
  while (chunks < 100 && (credit = tell(call, ALPINE_EVENT, ALPINE_EVENT_STDOUT, large, ALPINE_MAX_CHUNK)) == 0) chunks++;
  snprintf(reply, sizeof reply,
           "{\"name\":\"%d %d %d %d %d %d %d\",\"version\":\"1\",\"isolation\":{\"tier\":\"none\"}}", unknown, host_only,
           too_big, chunk, null, stranger, code == ALPINE_METHOD_DESCRIBE ? 0 : credit);
  tell(call, ALPINE_OK, 0, reply, strlen(reply));
  tell(call, ALPINE_OK, 0, reply, strlen(reply));
  return ALPINE_SENT_OK;
}

static int32_t over(void *ctx, uint32_t deadline_ms) {
  (void)ctx, (void)deadline_ms;
  return ALPINE_SENT_OK;
}

__attribute__((unused)) static int32_t opened(uint32_t abi, const alpine_port *to, const uint8_t *json, size_t len,
                                              alpine_port *out) {
  (void)abi, (void)json, (void)len;
  host = *to;
  *out = (alpine_port){THE_PORT_SIZE, THE_PORT_ABI, NULL, take, over};
  return ALPINE_SENT_OK;
}

__attribute__((unused)) static int32_t refused(uint32_t abi, const alpine_port *to, const uint8_t *json, size_t len,
                                               alpine_port *out) {
  (void)abi, (void)json, (void)len, (void)out;
  to->send(to->ctx, 0, ALPINE_ERR, ALPINE_ERROR_UNREACHABLE, (const uint8_t *)"the region is down", 18);
  return ALPINE_SENT_BAD;
}

__attribute__((unused)) static int32_t silent(uint32_t abi, const alpine_port *to, const uint8_t *json, size_t len,
                                              alpine_port *out) {
  (void)abi, (void)to, (void)json, (void)len, (void)out;
  return 77;
}

__attribute__((unused)) static int32_t empty(uint32_t abi, const alpine_port *to, const uint8_t *json, size_t len,
                                             alpine_port *out) {
  (void)abi, (void)to, (void)json, (void)len, (void)out;
  return ALPINE_SENT_OK;
}

#ifdef THE_SMALL
/* A provider of a boundary that had no more than this: behind it is nothing that could be read. */
const alpine_provider *alpine_provider_v1(const alpine_host_info *info) {
  enum { SMALL = 48 };
  alpine_provider whole = {THE_MAGIC, SMALL, THE_ABI, THE_ABI, THE_FLAGS, "odd", "1", "cc", THE_OPEN};
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  char *at = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (info->magic != ALPINE_MAGIC || at == MAP_FAILED || mprotect(at + page, page, PROT_NONE)) return NULL;
  return memcpy(at + page - SMALL, &whole, SMALL);
}
#elif !defined(NO_SYMBOL)
const alpine_provider *alpine_provider_v1(const alpine_host_info *info) {
  static const alpine_provider provider = {THE_MAGIC, THE_SIZE, THE_ABI, THE_ABI,  THE_FLAGS,
                                           "odd",     "1",      "cc",    THE_OPEN};
#ifdef THE_NULL
  return NULL;
#endif
  return info->magic == ALPINE_MAGIC ? &provider : NULL;
}
#endif
