/* alpine_provider.h: a provider of sandboxes for alpine, in C. Version 1 of the boundary.
 *
 * A library exports one symbol, `alpine_provider_v1`. It is cheap, may be called more than once, starts no thread, and
 * returns a static, or NULL where it can't serve this host. Beside it the library has a manifest, which is read without
 * running anything:
 *
 *   __attribute__((used, section(".alpine.provider"))) static const char MANIFEST[] =
 *       "{\"name\":\"acme\",\"version\":\"1.0.0\",\"abi_min\":1,\"abi_max\":1,"
 *       "\"sdk\":\"alpine_provider.h\",\"compiler\":\"cc\",\"panic\":\"unwind\"}";
 *
 * The rules
 *  1. Every pointer is borrowed until the function returns. Nobody frees the other side's memory.
 *  2. `send` may be called from any thread, at once; it does not block.
 *  3. Exactly one OK or ERR for each CALL for which your `send` returned ALPINE_SENT_OK, also after CANCEL or `close`. The
 *     events of a call are ordered, and come before its answer. A call that your `send` refuses is answered by the host. A frame
 *     of an unknown kind, or over the limit of its kind, ends its call with an error.
 *  4. Nothing is thrown over the boundary.
 *  5. A closed instance is marked, not freed: the host may be late. A library is never unloaded.
 *  6. Each call has, for each direction, ALPINE_CREDIT bytes of credit for its stream: EVENT stdout and stderr, INPUT data.
 *     A chunk costs its bytes, and never less than ALPINE_MIN_CHARGE. GRANT gives credit back: yours to the host when you
 *     have used its INPUT, the host's to you when its user has taken your EVENTs. Without credit the host's `send` returns
 *     ALPINE_SENT_WOULD_BLOCK: wait for GRANT and send the same chunk again. A warning, progress or LOG that finds too much
 *     waiting for the host is answered so, too: leave it out, or send it later. OK and ERR never are.
 *  7. Any call works in a fresh process, given the configuration and the ids: keep nothing in memory but caches.
 *
 * On a wire (an executable finds a socket as descriptor 3) each frame is `u64 call_id, u32 kind, u32 code, u32 len`, all
 * little-endian, and then the payload. Both sides greet with HELLO at once; the host then sends OPEN, and the provider
 * answers READY, or ERR of call 0. It ends when the socket does. Sending without credit, a frame of an unknown kind, or one
 * over its limit ends the provider. */
#ifndef ALPINE_PROVIDER_H
#define ALPINE_PROVIDER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define ALPINE_ASSERT(what) static_assert(what, #what)
#else
#define ALPINE_ASSERT(what) _Static_assert(what, #what)
#endif

#define ALPINE_MAGIC 0x315652504e504c41ull /* "ALPNPRV1" */
#define ALPINE_ABI_MIN 1
#define ALPINE_ABI_MAX 1

/* Kinds of frames, and who sends them. */
#define ALPINE_CALL 1    /* host: code is the method; {"meta":{…},"request":{…}} */
#define ALPINE_CANCEL 2  /* host: the caller gave up; the call is still answered once */
#define ALPINE_GRANT 3   /* both: code is how many bytes more may be sent */
#define ALPINE_INPUT 4   /* host: code is one of ALPINE_INPUT_… */
#define ALPINE_PING 5    /* both */
#define ALPINE_PONG 6    /* both: code is the ping's */
#define ALPINE_OK 16     /* provider: the reply, JSON */
#define ALPINE_ERR 17    /* provider: code is one of ALPINE_ERROR_…; {"kind","message","retry","hint"}, or plain text */
#define ALPINE_EVENT 18  /* provider: code is one of ALPINE_EVENT_… */
#define ALPINE_LOG 19    /* provider: code is the level, 1 (error) to 5 (trace); {"target","message","fields"} */
#define ALPINE_HELLO 32  /* both, on a wire only: {"magic":"ALPNPRV1","abi_min","abi_max","name","version","features"} */
#define ALPINE_OPEN 33   /* host, on a wire only: {"config":{…},"place":{…}} */
#define ALPINE_READY 34  /* provider, on a wire only */

/* What `send` returns. */
#define ALPINE_SENT_OK 0
#define ALPINE_SENT_WOULD_BLOCK 1 /* no credit: wait for GRANT */
#define ALPINE_SENT_GONE 2        /* no such call, or it was answered */
#define ALPINE_SENT_CLOSED 3
#define ALPINE_SENT_UNSUPPORTED 4 /* no such kind or method */
#define ALPINE_SENT_PANIC 5
#define ALPINE_SENT_TOO_BIG 6
#define ALPINE_SENT_BAD 7

/* Limits, in bytes; of LOG also a number each second, beyond which it is dropped. */
#define ALPINE_HEADER 20
#define ALPINE_MAX_CONTROL (1024 * 1024)
#define ALPINE_MAX_CHUNK (64 * 1024)
#define ALPINE_MAX_LOG (8 * 1024)
#define ALPINE_LOGS_PER_SECOND 1000
#define ALPINE_CREDIT (256 * 1024)
#define ALPINE_MIN_CHARGE 64

#define ALPINE_EVENT_PROGRESS 1 /* {"what","done","total"} */
#define ALPINE_EVENT_STDOUT 2   /* raw, costs credit */
#define ALPINE_EVENT_STDERR 3   /* raw, costs credit */
#define ALPINE_EVENT_WARNING 4  /* text */

#define ALPINE_INPUT_DATA 0   /* raw, costs credit */
#define ALPINE_INPUT_EOF 1
#define ALPINE_INPUT_RESIZE 2 /* {"rows","columns"} */
#define ALPINE_INPUT_SIGNAL 3 /* {"signal"} */

#define ALPINE_CANCEL_GONE 1
#define ALPINE_CANCEL_DEADLINE 2

/* Methods. A provider that lacks one returns ALPINE_SENT_UNSUPPORTED, and does not name it in `describe`. */
#define ALPINE_METHOD_DESCRIBE 1
#define ALPINE_METHOD_PROVISION 2
#define ALPINE_METHOD_SYNC_REPO 3
#define ALPINE_METHOD_INSTALL 4
#define ALPINE_METHOD_START_AGENT 5
#define ALPINE_METHOD_OPEN_AGENT 6
#define ALPINE_METHOD_INSPECT 7
#define ALPINE_METHOD_LIST 8
#define ALPINE_METHOD_EXEC 9
#define ALPINE_METHOD_LOGS 10
#define ALPINE_METHOD_STOP 11
#define ALPINE_METHOD_CAPTURE 12
#define ALPINE_METHOD_PERSIST 13
#define ALPINE_METHOD_READ_OBJECT 14
#define ALPINE_METHOD_RESTORE 15
#define ALPINE_METHOD_DESTROY 16

/* Kinds of failures, for ERR. */
#define ALPINE_ERROR_INVALID_ARGUMENT 1
#define ALPINE_ERROR_NOT_FOUND 2
#define ALPINE_ERROR_CONFLICT 3
#define ALPINE_ERROR_FENCED 4
#define ALPINE_ERROR_DESTROYED 5
#define ALPINE_ERROR_UNSUPPORTED 6
#define ALPINE_ERROR_ISOLATION_UNAVAILABLE 7
#define ALPINE_ERROR_AUTH_REJECTED 8
#define ALPINE_ERROR_BRANCH_NOT_FOUND 9
#define ALPINE_ERROR_COMMIT_NOT_FOUND 10
#define ALPINE_ERROR_UNREACHABLE 11
#define ALPINE_ERROR_CONFIG_INVALID 12
#define ALPINE_ERROR_INSTALL_FAILED 13
#define ALPINE_ERROR_AGENT_NOT_READY 14
#define ALPINE_ERROR_WORKSPACE_LOST 15
#define ALPINE_ERROR_TOO_LARGE 16
#define ALPINE_ERROR_CORRUPT 17
#define ALPINE_ERROR_NO_SPACE 18
#define ALPINE_ERROR_CANCELLED 19
#define ALPINE_ERROR_TIMEOUT 20
#define ALPINE_ERROR_CRASHED 21
#define ALPINE_ERROR_IO 22
#define ALPINE_ERROR_INTERNAL 23

/* Flags. */
#define ALPINE_HOST_CHILD 1           /* host: you run in a child process of your own */
#define ALPINE_HOST_LOG_SHIFT 8       /* host: where three bits tell the most verbose level of LOG it wants; 0 stands for 3 */
#define ALPINE_PROVIDER_ABORTS 1      /* provider: built with `panic=abort` */
#define ALPINE_PROVIDER_NEEDS_CHILD 2 /* provider: needs a process of its own */

typedef struct alpine_host_info {
  uint64_t magic;
  uint32_t struct_size; /* where it was made: later versions only add fields */
  uint32_t abi_min;
  uint32_t abi_max;
  uint32_t flags;
  const char *host_version;
} alpine_host_info;

/* One end of the port; the same layout both ways. */
typedef struct alpine_port {
  uint32_t struct_size;
  uint32_t abi;
  void *ctx; /* handed back to `send` and `close` */
  int32_t (*send)(void *ctx, uint64_t call_id, uint32_t kind, uint32_t code, const uint8_t *data, size_t len);
  /* What still runs is cancelled and answered within the deadline. A provider that closes the host's end, or whose `send`
   * returns ALPINE_SENT_CLOSED, has crashed: its calls are answered so, and the next one has another instance. */
  int32_t (*close)(void *ctx, uint32_t deadline_ms);
} alpine_port;

typedef struct alpine_provider {
  uint64_t magic;
  uint32_t struct_size;
  uint32_t abi_min;
  uint32_t abi_max;
  uint32_t flags;
  const char *name, *version, *build;
  /* Makes an instance. `config_json` is {"config":{…},"place":{…}}: the user's table, and where the provider may keep
   * things. Returns ALPINE_SENT_OK after it has filled `out`; or sends ERR of call 0, and returns anything else. */
  int32_t (*open)(uint32_t abi, const alpine_port *host, const uint8_t *config_json, size_t len, alpine_port *out);
} alpine_provider;

/* The one symbol. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const alpine_provider *
alpine_provider_v1(const alpine_host_info *host);

#if UINTPTR_MAX == 0xffffffffffffffffu
ALPINE_ASSERT(sizeof(alpine_host_info) == 32);
ALPINE_ASSERT(offsetof(alpine_host_info, struct_size) == 8);
ALPINE_ASSERT(offsetof(alpine_host_info, abi_min) == 12);
ALPINE_ASSERT(offsetof(alpine_host_info, abi_max) == 16);
ALPINE_ASSERT(offsetof(alpine_host_info, flags) == 20);
ALPINE_ASSERT(offsetof(alpine_host_info, host_version) == 24);
ALPINE_ASSERT(sizeof(alpine_port) == 32);
ALPINE_ASSERT(offsetof(alpine_port, abi) == 4);
ALPINE_ASSERT(offsetof(alpine_port, ctx) == 8);
ALPINE_ASSERT(offsetof(alpine_port, send) == 16);
ALPINE_ASSERT(offsetof(alpine_port, close) == 24);
ALPINE_ASSERT(sizeof(alpine_provider) == 56);
ALPINE_ASSERT(offsetof(alpine_provider, struct_size) == 8);
ALPINE_ASSERT(offsetof(alpine_provider, abi_min) == 12);
ALPINE_ASSERT(offsetof(alpine_provider, abi_max) == 16);
ALPINE_ASSERT(offsetof(alpine_provider, flags) == 20);
ALPINE_ASSERT(offsetof(alpine_provider, name) == 24);
ALPINE_ASSERT(offsetof(alpine_provider, version) == 32);
ALPINE_ASSERT(offsetof(alpine_provider, build) == 40);
ALPINE_ASSERT(offsetof(alpine_provider, open) == 48);
#endif

#ifdef __cplusplus
}
#endif

#endif
