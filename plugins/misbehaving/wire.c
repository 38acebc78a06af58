/* A program that breaks the wire, for tests of its host: what it is built with (`-DFAULT=…`) says how. Up to there it is a
 * provider that has opened.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRUNCATED, OVERSIZED, WRONG_MAGIC, WRONG_RANGE, NO_JSON, UNKNOWN_KIND, SILENT };
enum { WIRE = 3, OK = 16, HELLO = 32, OPEN = 33, READY = 34, CALL = 1 };

static void put(uint64_t id, uint32_t kind, uint32_t len, const char *payload) {
  unsigned char bytes[20 + 256] = {0};
  memcpy(bytes, &id, 8), memcpy(bytes + 8, &kind, 4), memcpy(bytes + 16, &len, 4);
  memcpy(bytes + 20, payload, strlen(payload));
  if (write(WIRE, bytes, 20 + strlen(payload)) < 0) exit(1);
}

static void get_all(void *to, size_t len) {
  for (size_t done = 0; done < len;) {
    const ssize_t got = read(WIRE, (char *)to + done, len - done);
    if (got <= 0) exit(0);
    done += (size_t)got;
  }
}

/* Waits for a frame of this kind, and gives its call. */
static uint64_t wait_for(uint32_t wanted) {
  for (;;) {
    uint64_t id;
    uint32_t words[3];
    get_all(&id, sizeof id), get_all(words, sizeof words);
    char *payload = malloc(words[2] + 1u);
    if (!payload) exit(1);
    get_all(payload, words[2]);
    free(payload);
    if (words[0] == wanted) return id;
  }
}

int main(void) {
  const char *hello = FAULT == WRONG_MAGIC   ? "{\"magic\":\"SOMEBODY\",\"abi_min\":1,\"abi_max\":1}"
                      : FAULT == WRONG_RANGE ? "{\"magic\":\"ALPNPRV1\",\"abi_min\":7,\"abi_max\":9}"
                      : FAULT == NO_JSON     ? "hello!"
                                             : "{\"magic\":\"ALPNPRV1\",\"abi_min\":1,\"abi_max\":1}";
  if (FAULT == SILENT) for (;;) pause();
  put(0, HELLO, (uint32_t)strlen(hello), hello);
  wait_for(OPEN);
  put(0, READY, 0, "");
  const uint64_t id = wait_for(CALL);
  switch (FAULT) {
    case TRUNCATED: put(id, OK, 100, "{"); return 0;
    case OVERSIZED: put(id, OK, UINT32_MAX, "{"); break;
    case UNKNOWN_KIND: put(id, 99, 0, ""); break;
    default: break;
  }
  wait_for(UINT32_MAX); /* until the host has gone */
}
