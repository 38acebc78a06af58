/* A provider in C, to copy: sandboxes are plain directories, commands plain processes. It isolates nothing and says so.
 *
 * It has the six methods that are enough; alpine's adapter does the rest. Every call runs in a thread of its own, is
 * answered once, and may come from a new process: all that is known is in files.
 *
 *   ROOT/ID/about.json   what was asked for; written first, so that `list` finds what is half made
 *   ROOT/ID/made         that it is whole
 *   ROOT/ID/fence        the highest fence that was seen
 *   ROOT/ID/stopped      that no command may begin any more
 *   ROOT/ID/workspace
 *   ROOT/.destroyed/ID   that this id will not come back
 *   ROOT/.lock           held while any of these are decided upon
 */
#define _GNU_SOURCE
#include "alpine_provider.h"
#include "json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NAME "c"
#define VERSION "0.1.0"
/* The variables that every process of a sandbox carries: its directory, and which command it is of. */
#define MARK "ALPINE_C_SANDBOX="
#define COMMAND "ALPINE_C_COMMAND="

__attribute__((used, section(".alpine.provider"))) static const char MANIFEST[] =
    "{\"name\":\"" NAME "\",\"version\":\"" VERSION "\",\"abi_min\":1,\"abi_max\":1,"
    "\"sdk\":\"alpine_provider.h\",\"compiler\":\"cc " __VERSION__ "\",\"panic\":\"unwind\"}";

#define ISOLATION                                                                                                      \
  "{\"tier\":\"process\",\"layers\":[],\"limits\":{},\"missing\":[{\"what\":\"isolation\","                            \
  "\"why\":\"commands are plain processes of the user\",\"fix\":\"use a provider that isolates\"},"                       \
  "{\"what\":\"processes\",\"why\":\"one that clears its environment, loses its parent, and leaves the directory or sets "  \
  "a `HOME` is not ended\",\"fix\":\"use a provider that isolates\"}]}"

static const char DESCRIBE[] =
    "{\"name\":\"" NAME "\",\"version\":\"" VERSION "\",\"isolation\":" ISOLATION ","
    "\"methods\":[\"describe\",\"provision\",\"inspect\",\"list\",\"exec\",\"stop\",\"destroy\"],"
    "\"features\":[\"exec_input\",\"exec_signals\",\"host_network\"],\"limits\":{},"
    "\"config_schema\":{\"type\":\"object\",\"properties\":{\"root\":{\"type\":\"string\"}},"
    "\"additionalProperties\":false}}";

/* What `open` makes. It is never freed: a host that is late finds it closed. */
typedef struct provider {
  alpine_port host;
  char *root;
  char *open; /* the configuration's text, which `env` is a part of */
  json env;
  pthread_mutex_t lock;
  pthread_cond_t idle;
  struct call *calls;
  size_t running;
  int closed;
} provider;

/* A call that runs. What follows `payload` is shared with the host's threads, under the provider's lock. */
typedef struct call {
  provider *provider;
  uint64_t id, fence;
  uint32_t method;
  json request;
  char *sandbox;
  text reply; /* or, where it fails, what is to be said about that */
  char *payload;
  struct call *next;
  int wake; /* becomes readable with every change of the following */
  int cancelled;
  uint64_t credit; /* what may still be sent of its output */
  text input;      /* what its command is still to read */
  uint32_t owed;   /* the credit that the host gets back for it */
  int input_over;
  uint64_t signals;
} call;

static int failed(call *call, int kind, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Every method returns the kind of its failure, or 0. */
static int failed(call *call, int kind, const char *format, ...) {
  char said[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(said, sizeof said, format, arguments);
  va_end(arguments);
  call->reply.len = 0;
  put(&call->reply, "%s", said);
  return kind;
}

static int failed_io(call *call, const char *path) {
  return failed(call, ALPINE_ERROR_IO, "`%s`: %s", path, strerror(errno));
}

/* ---- files ---- */

static char *path_of(call *call, const char *id, const char *name) {
  text path = {0};
  put(&path, "%s/%s%s%s", call->provider->root, id, *name ? "/" : "", name);
  return path.at;
}

static int is_there(const char *path) {
  struct stat found;
  return lstat(path, &found) == 0;
}

static int make_dirs(char *path) {
  for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    const int made = mkdir(path, 0700);
    *slash = '/';
    if (made && errno != EEXIST) return -1;
  }
  return mkdir(path, 0700) && errno != EEXIST ? -1 : 0;
}

/* Replaces a file as a whole, flushed to disk. */
static int write_file(const char *path, const char *content) {
  text part = {0};
  put(&part, "%s.part", path);
  const size_t len = strlen(content);
  const int file = open(part.at, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const int done = file >= 0 && write(file, content, len) == (ssize_t)len && !fsync(file);
  if (file >= 0) close(file);
  const int result = done ? rename(part.at, path) : -1;
  free(part.at);
  return result;
}

/* The content of a small file, to be freed; NULL where there is none. */
static char *read_file(const char *path, size_t *len) {
  text content = {0};
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return NULL;
  char part[4096];
  ssize_t got;
  put_bytes(&content, "", 0);
  while ((got = read(file, part, sizeof part)) > 0) put_bytes(&content, part, (size_t)got);
  close(file);
  if (len) *len = content.len;
  return content.at;
}

static int remove_all(char *path) {
  char *const paths[] = {path, NULL};
  if (!is_there(path)) return 0;
  FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
  for (FTSENT *entry; tree && (entry = fts_read(tree));) {
    if (entry->fts_info == FTS_D) chmod(entry->fts_accpath, 0700);
    else if (entry->fts_info == FTS_DP) rmdir(entry->fts_accpath);
    else unlink(entry->fts_accpath);
  }
  if (tree) fts_close(tree);
  return is_there(path) ? -1 : 0;
}

/* ---- what is known of a sandbox ---- */

typedef enum state { MISSING, RUNNING, EXITED, DESTROYED } state;

static const char *const STATES[] = {"missing", "running", "exited", "missing"};

static state state_of(call *call, const char *id) {
  char *destroyed = path_of(call, ".destroyed", id), *about = path_of(call, id, "about.json");
  char *stopped = path_of(call, id, "stopped"), *made = path_of(call, id, "made");
  const int runs = is_there(made) && !is_there(stopped);
  const state found = is_there(destroyed) ? DESTROYED : !is_there(about) ? MISSING : runs ? RUNNING : EXITED;
  free(destroyed), free(about), free(stopped), free(made);
  return found;
}

/* Takes the lock of all that is known; gives its descriptor, or -1. */
static int lock(call *call) {
  char *destroyed = path_of(call, ".destroyed", ""), *path = path_of(call, ".lock", "");
  const int file = make_dirs(destroyed) ? -1 : open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) failed_io(call, path);
  else while (flock(file, LOCK_EX) && errno == EINTR) continue;
  free(destroyed), free(path);
  return file;
}

/* Refuses a fence that is lower than the highest that was seen, and remembers a higher one. The lock is held. */
static int raise_fence(call *call) {
  char *path = path_of(call, call->sandbox, "fence"), *seen = read_file(path, NULL);
  const uint64_t highest = seen ? strtoull(seen, NULL, 10) : 0;
  char now[32];
  snprintf(now, sizeof now, "%llu\n", (unsigned long long)call->fence);
  int kind = 0;
  if (call->fence < highest) {
    kind = failed(call, ALPINE_ERROR_FENCED, "fence %llu of sandbox `%s` is lower than %llu, which was seen already",
                  (unsigned long long)call->fence, call->sandbox, (unsigned long long)highest);
  } else if (call->fence > highest && write_file(path, now)) {
    kind = failed_io(call, path);
  }
  free(path), free(seen);
  return kind;
}

static int is_gone(call *call, state found) {
  if (found == DESTROYED) return failed(call, ALPINE_ERROR_DESTROYED, "sandbox `%s` was destroyed", call->sandbox);
  return failed(call, ALPINE_ERROR_NOT_FOUND, "there is no sandbox `%s`", call->sandbox);
}

/* ---- processes ---- */

/* Reads the numbers of `/proc/PID/stat`, at their places of proc(5); 0 where it has ended. */
static int stat_of(int pid, unsigned long long fields[52]) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  char *stat = read_file(path, NULL), *at = stat ? strrchr(stat, ')') : NULL; /* the command's name is the second */
  const int lives = at && strlen(at) > 2 && at[2] != 'Z' && at[2] != 'X';
  for (int field = 3; lives && field < 52 && (at = strchr(at + 1, ' ')); field++) fields[field] = strtoull(at, NULL, 10);
  free(stat);
  return lives;
}

/* A process's variables. They can't be read while it executes a program: a moment, which is waited for. */
static char *variables_of(int pid, size_t *len) {
  for (int tries = 0; tries < 1000; tries++, usleep(1000)) {
    char path[64], program[8];
    snprintf(path, sizeof path, "/proc/%d/environ", pid);
    char *variables = read_file(path, len);
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    /* The kernel's own processes have no program. */
    if (!variables || *len || readlink(path, program, sizeof program) < 0) return variables;
    /* Where its code ends in its memory, 0 until a program is there; where the variables begin and end. */
    unsigned long long fields[52] = {0};
    if (stat_of(pid, fields) && fields[27] && fields[50] == fields[51]) return variables;
    free(variables);
  }
  return NULL;
}

/* Whether a process bears the mark, or, below the directory, has cleared its environment: one with a HOME may be a shell of the
   user's that stands there. */
static int is_marked(int pid, const char *mark, const char *dir) {
  static const char *const links[] = {"cwd", "root", "exe"};
  size_t len = 0;
  char *variables = variables_of(pid, &len);
  int marked = 0, cleared = variables && dir;
  for (size_t at = 0; variables && at < len; at += strlen(variables + at) + 1) {
    marked |= !strcmp(variables + at, mark);
    cleared &= !!strncmp(variables + at, "HOME=", 5);
  }
  for (int i = 0; cleared && !marked && i < 3; i++) {
    char path[64], place[4096] = "";
    snprintf(path, sizeof path, "/proc/%d/%s", pid, links[i]);
    marked = readlink(path, place, sizeof place - 1) > 0 && !strncmp(place, dir, strlen(dir)) && place[strlen(dir)] == '/';
  }
  free(variables);
  return marked;
}

typedef struct process {
  int pid, parent, ours;
  unsigned long long started; /* tells it from a later one of the same id */
} process;

typedef struct processes {
  process *at;
  size_t count;
} processes;

/* Signals every process that is marked, or known already, and all that descend from these; remembers them, and gives how
   many there are. */
static int signal_all(processes *known, const char *mark, const char *dir, int number) {
  processes now = {0};
  DIR *all = opendir("/proc");
  for (struct dirent *entry; all && (entry = readdir(all));) {
    const int pid = atoi(entry->d_name);
    unsigned long long fields[52] = {0};
    if (pid <= 0 || !stat_of(pid, fields)) continue;
    process it = {pid, (int)fields[4], is_marked(pid, mark, dir), fields[22]};
    for (size_t i = 0; i < known->count; i++) it.ours |= known->at[i].pid == pid && known->at[i].started == it.started;
    process *at = realloc(now.at, (now.count + 1) * sizeof *at);
    if (!at) abort();
    now.at = at;
    now.at[now.count++] = it;
  }
  if (all) closedir(all);
  for (int more = 1; more;) {
    more = 0;
    for (process *one = now.at; one < now.at + now.count; one++) {
      for (process *other = now.at; !one->ours && other < now.at + now.count; other++) {
        if (other->ours && other->pid == one->parent) one->ours = more = 1;
      }
    }
  }
  free(known->at);
  *known = (processes){now.at, 0};
  for (process *one = now.at; one < now.at + now.count; one++) {
    if (!one->ours) continue;
    kill(one->pid, number);
    if (number == SIGTERM) kill(one->pid, SIGCONT);
    known->at[known->count++] = *one;
  }
  return (int)known->count;
}

static uint64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int is_cancelled(call *call) {
  pthread_mutex_lock(&call->provider->lock);
  const int cancelled = call->cancelled;
  pthread_mutex_unlock(&call->provider->lock);
  return cancelled;
}

/* Ends every process: asks, and after the grace period forces. */
static int end_all(call *call, const char *dir, uint64_t grace_ms, int *forced) {
  const uint64_t begun = now_ms();
  int asked = 0, kind = 0;
  text mark = {0};
  put(&mark, MARK "%s", dir);
  char *real = realpath(dir, NULL); /* as the kernel has it, without links */
  processes known = {0};
  *forced = 0;
  /* Who forks and ends meanwhile may be missed by one look. */
  for (int none = 0; none < 2 && !kind;) {
    const uint64_t passed = now_ms() - begun;
    const int force = passed >= grace_ms;
    const int left = signal_all(&known, mark.at, real, force ? SIGKILL : asked ? 0 : SIGTERM);
    none = left ? 0 : none + 1;
    asked |= left;
    *forced |= left && force;
    if (left && is_cancelled(call)) kind = failed(call, ALPINE_ERROR_CANCELLED, "the caller gave up");
    else if (left && passed > grace_ms + 5000) kind = failed(call, ALPINE_ERROR_IO, "%d processes can't be ended", left);
    else if (left) poll(NULL, 0, 5);
  }
  free(mark.at), free(real), free(known.at);
  return kind;
}

/* ---- commands ---- */

typedef struct command {
  pid_t pid;
  int ended, input, output[2]; /* its pidfd, and our ends of its streams; -1 where they are over */
} command;

static void close_end(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

/* Becomes the command, or tells why it can't. */
static void become(char **argv, char **env, const char *dir, const int streams[3], int trouble) {
  setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_DFL);
  for (int i = 0; i < 3; i++) dup2(streams[i], i);
  if (!chdir(dir)) {
    environ = env;
    execvp(argv[0], argv);
  }
  const int why = errno;
  if (write(trouble, &why, sizeof why) < 0) _exit(126);
  _exit(127);
}

/* Starts it with pipes; gives 0, or why it could not be started. */
static int start(command *it, char **argv, char **env, const char *dir) {
  int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1}, trouble[2] = {-1, -1}, why = 0;
  *it = (command){.ended = -1, .input = -1, .output = {-1, -1}};
  const int made = !pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC) && !pipe2(err, O_CLOEXEC) && !pipe2(trouble, O_CLOEXEC);
  it->pid = made ? fork() : -1;
  if (it->pid == 0) become(argv, env, dir, (int[]){in[0], out[1], err[1]}, trouble[1]);
  why = it->pid < 0 ? errno : 0;
  close_end(&in[0]), close_end(&out[1]), close_end(&err[1]), close_end(&trouble[1]);
  if (it->pid > 0) {
    setpgid(it->pid, it->pid);
    while (read(trouble[0], &why, sizeof why) < 0 && errno == EINTR) continue;
    it->ended = why ? -1 : (int)syscall(SYS_pidfd_open, it->pid, 0);
    if (!why && it->ended < 0) {
      why = errno;
      kill(-it->pid, SIGKILL);
    }
    if (why) waitpid(it->pid, NULL, 0);
  }
  close_end(&trouble[0]);
  it->input = in[1], it->output[0] = out[0], it->output[1] = err[0];
  if (why) close_end(&it->input), close_end(&it->output[0]), close_end(&it->output[1]);
  else fcntl(it->input, F_SETFL, O_NONBLOCK);
  return why;
}

/* What the host wants of the command by now; gives what may be sent of its output. */
static uint64_t attend(call *call, command *it) {
  uint64_t ignored, allowed;
  uint32_t granted = 0;
  if (read(call->wake, &ignored, sizeof ignored) < 0) ignored = 0;
  pthread_mutex_lock(&call->provider->lock);
  for (int number = 1; number < 64; number++) {
    if (call->signals >> number & 1) kill(-it->pid, number);
  }
  call->signals = 0;
  if (it->input >= 0 && call->input.len) {
    const ssize_t written = write(it->input, call->input.at, call->input.len);
    if (written > 0) {
      call->input.len -= (size_t)written;
      memmove(call->input.at, call->input.at + written, call->input.len);
    } else if (errno != EAGAIN && errno != EINTR) {
      close_end(&it->input);
    }
  }
  if (it->input < 0) call->input.len = 0; /* a command that reads no more is no failure */
  if (!call->input.len) {
    granted = call->owed;
    call->owed = 0;
    if (call->input_over) close_end(&it->input);
  }
  allowed = call->credit;
  pthread_mutex_unlock(&call->provider->lock);
  if (granted) call->provider->host.send(call->provider->host.ctx, call->id, ALPINE_GRANT, granted, NULL, 0);
  return allowed;
}

/* Passes on what there is of a stream, as far as it may be sent. */
static void pass_on(call *call, int *from, uint32_t code) {
  uint8_t part[ALPINE_MAX_CHUNK];
  pthread_mutex_lock(&call->provider->lock);
  const uint64_t allowed = call->credit;
  pthread_mutex_unlock(&call->provider->lock);
  if (allowed < ALPINE_MIN_CHARGE) return;
  const ssize_t got = read(*from, part, allowed < sizeof part ? (size_t)allowed : sizeof part);
  if (got < 0 && errno == EINTR) return;
  if (got <= 0) {
    close_end(from);
    return;
  }
  const uint64_t cost = got < ALPINE_MIN_CHARGE ? ALPINE_MIN_CHARGE : (uint64_t)got;
  pthread_mutex_lock(&call->provider->lock);
  call->credit -= cost;
  pthread_mutex_unlock(&call->provider->lock);
  alpine_port *host = &call->provider->host;
  host->send(host->ctx, call->id, ALPINE_EVENT, code, part, (size_t)got);
}

/* Passes streams on until the command has ended, and what it wrote by then has been sent. */
static int attend_to_end(call *call, command *it, processes *known, const char *mark) {
  int over = 0;
  for (;;) {
    const uint64_t allowed = attend(call, it);
    const int may = allowed >= ALPINE_MIN_CHARGE;
    pthread_mutex_lock(&call->provider->lock);
    const int waits = it->input >= 0 && call->input.len > 0, cancelled = call->cancelled;
    pthread_mutex_unlock(&call->provider->lock);
    if (cancelled) signal_all(known, mark, NULL, SIGKILL);
    if (over && (cancelled || (it->output[0] < 0 && it->output[1] < 0))) break;
    struct pollfd fds[] = {{call->wake, POLLIN, 0},
                           {over ? -1 : it->ended, POLLIN, 0},
                           {waits ? it->input : -1, POLLOUT, 0},
                           {may ? it->output[0] : -1, POLLIN, 0},
                           {may ? it->output[1] : -1, POLLIN, 0}};
    /* What it left in the background may hold its streams for ever: that is not waited for. */
    const int ready = poll(fds, 5, over && may ? 50 : -1);
    if (ready == 0) break;
    if (fds[1].revents) over = 1;
    if (fds[3].revents) pass_on(call, &it->output[0], ALPINE_EVENT_STDOUT);
    if (fds[4].revents) pass_on(call, &it->output[1], ALPINE_EVENT_STDERR);
  }
  int status = 0;
  while (waitpid(it->pid, &status, 0) < 0 && errno == EINTR) continue;
  close_end(&it->ended), close_end(&it->input), close_end(&it->output[0]), close_end(&it->output[1]);
  return status;
}

/* Texts for `execvp`: ended by NULL. */
typedef struct texts {
  char **at;
  size_t count;
  int broken; /* one of them is none */
} texts;

static void add(texts *to, char *one) {
  char **at = realloc(to->at, (to->count + 2) * sizeof *at);
  if (!at) abort();
  to->at = at;
  to->broken |= !one;
  at[to->count++] = one;
  at[to->count] = NULL;
}

/* Adds `NAME=VALUE` of each variable that `before` does not have. */
static void add_env(texts *to, json all, json before) {
  for (json name, value; json_next(&all, &name, &value);) {
    char *key = json_text(name), *it = json_text(value);
    text one = {0};
    if (key && *key && !strchr(key, '=') && it) put(&one, "%s=%s", key, it);
    if (!one.at || !json_get(before, key).at) add(to, one.at);
    else free(one.at);
    free(key), free(it);
  }
}

static void free_texts(texts *all) {
  for (size_t i = 0; i < all->count; i++) free(all->at[i]);
  free(all->at);
}

/* ---- the methods ---- */

static int describe(call *call) {
  put(&call->reply, "%s", DESCRIBE);
  return 0;
}

/* What was asked for, as the file that remembers it. */
static char *about_of(call *call) {
  char *ledger = json_text(json_get(call->request, "ledger_id"));
  char *session = json_text(json_get(call->request, "session_id"));
  text about = {0};
  if (ledger && session) {
    put(&about, "{\"ledger_id\":");
    put_text(&about, ledger);
    put(&about, ",\"session_id\":");
    put_text(&about, session);
    const int weak = json_is_true(json_get(call->request, "allow_unsandboxed"));
    put(&about, ",\"allow_unsandboxed\":%s}\n", weak ? "true" : "false");
  }
  free(ledger), free(session);
  return about.at;
}

static int make(call *call, const char *about, char *workspace) {
  char *path = path_of(call, call->sandbox, "about.json"), *before = read_file(path, NULL);
  char *dir = path_of(call, call->sandbox, ""), *tmp = path_of(call, call->sandbox, "tmp");
  char *made = path_of(call, call->sandbox, "made");
  int kind = 0;
  if (state_of(call, call->sandbox) == DESTROYED) {
    kind = is_gone(call, DESTROYED);
  } else if (before && !(kind = raise_fence(call)) && strcmp(before, about)) {
    kind = failed(call, ALPINE_ERROR_CONFLICT, "sandbox `%s` was made with other arguments", call->sandbox);
  } else if (!before) {
    if (make_dirs(dir) || write_file(path, about)) kind = failed_io(call, path);
    if (!kind) kind = raise_fence(call);
  }
  if (!kind && !is_there(made)) {
    if (make_dirs(workspace) || make_dirs(tmp) || write_file(made, "")) kind = failed_io(call, dir);
  }
  free(dir), free(tmp), free(made);
  free(path), free(before);
  return kind;
}

static int provision(call *call) {
  char *about = about_of(call), *workspace = path_of(call, call->sandbox, "workspace");
  int kind = ALPINE_ERROR_INVALID_ARGUMENT;
  if (!about) {
    failed(call, kind, "`ledger_id` and `session_id` are texts");
  } else {
    const int held = lock(call);
    kind = held < 0 ? ALPINE_ERROR_IO : make(call, about, workspace);
    if (held >= 0) close(held);
  }
  if (!kind) {
    put(&call->reply, "{\"workspace_path\":");
    put_text(&call->reply, workspace);
    put(&call->reply, ",\"isolation\":" ISOLATION "}");
  }
  free(about), free(workspace);
  return kind;
}

static int inspect(call *call) {
  const state found = state_of(call, call->sandbox);
  put(&call->reply, "{\"state\":\"%s\"", STATES[found]);
  if (found == RUNNING && json_is_true(json_get(call->request, "probe"))) {
    char *probe = path_of(call, call->sandbox, "workspace/.alpine-probe");
    const int writable = !write_file(probe, "") && !unlink(probe);
    put(&call->reply, ",\"probe\":{\"head\":null,\"writable\":%s,\"agent_ready\":null}", writable ? "true" : "false");
    free(probe);
  }
  put(&call->reply, "}");
  return 0;
}

static int is_id(const char *id) {
  const size_t len = id ? strlen(id) : 0;
  static const char fits[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
  return len && len <= 128 && *id != '-' && strspn(id, fits) == len;
}

static int list(call *call) {
  char *ledger = json_text(json_get(call->request, "ledger_id"));
  if (!ledger) return failed(call, ALPINE_ERROR_INVALID_ARGUMENT, "`ledger_id` is a text");
  DIR *all = opendir(call->provider->root);
  const int kind = !all && errno != ENOENT ? failed_io(call, call->provider->root) : 0;
  const char *comma = "";
  if (!kind) put(&call->reply, "{\"sandboxes\":[");
  for (struct dirent *entry; all && (entry = readdir(all));) {
    if (!is_id(entry->d_name)) continue;
    char *path = path_of(call, entry->d_name, "about.json");
    size_t len = 0;
    char *content = read_file(path, &len);
    const json about = json_parse(content ? content : "", len);
    char *owner = json_text(json_get(about, "ledger_id")), *session = json_text(json_get(about, "session_id"));
    const state found = state_of(call, entry->d_name);
    if (owner && session && !strcmp(owner, ledger) && (found == RUNNING || found == EXITED)) {
      put(&call->reply, "%s{\"sandbox_id\":\"%s\",\"session_id\":", comma, entry->d_name);
      put_text(&call->reply, session);
      put(&call->reply, ",\"state\":\"%s\"}", STATES[found]);
      comma = ",";
    }
    free(path), free(content), free(owner), free(session);
  }
  if (!kind) put(&call->reply, "]}");
  if (all) closedir(all);
  free(ledger);
  return kind;
}

static int run(call *call, texts *argv, texts *env, const char *workspace, const char *mark) {
  command it;
  const int why = start(&it, argv->at, env->at, workspace);
  if (why == ENOENT || why == EACCES || why == ENOTDIR || why == ENOEXEC) {
    return failed(call, ALPINE_ERROR_INVALID_ARGUMENT, "`%s` can't be run: %s", argv->at[0], strerror(why));
  }
  if (why) return failed(call, ALPINE_ERROR_IO, "`%s` can't be run: %s", argv->at[0], strerror(why));
  /* Looked at when the process is there, so that no `stop` misses it. */
  const state found = state_of(call, call->sandbox);
  processes known = {0};
  if (found != RUNNING) signal_all(&known, mark, NULL, SIGKILL);
  const int status = attend_to_end(call, &it, &known, mark);
  /* All that it has started ends with a command that was given up, whatever group it is in. */
  while ((found != RUNNING || is_cancelled(call)) && signal_all(&known, mark, NULL, SIGKILL)) poll(NULL, 0, 5);
  free(known.at);
  if (found != RUNNING) return failed(call, ALPINE_ERROR_NOT_FOUND, "sandbox `%s` does not run", call->sandbox);
  if (is_cancelled(call)) return failed(call, ALPINE_ERROR_CANCELLED, "the caller gave up");
  if (WIFEXITED(status)) put(&call->reply, "{\"exited\":%d}", WEXITSTATUS(status));
  else put(&call->reply, "{\"signalled\":%d}", WTERMSIG(status));
  return 0;
}

static int exec(call *call) {
  const state found = state_of(call, call->sandbox);
  if (found == EXITED) return failed(call, ALPINE_ERROR_NOT_FOUND, "sandbox `%s` does not run", call->sandbox);
  if (found != RUNNING) return is_gone(call, found);
  char *dir = path_of(call, call->sandbox, ""), *workspace = path_of(call, call->sandbox, "workspace");
  json words = json_get(call->request, "argv");
  const json variables = json_get(call->request, "env");
  texts argv = {0}, env = {0};
  text mark = {0}, command = {0}, tmp = {0};
  for (json word; json_next(&words, NULL, &word);) add(&argv, json_text(word));
  put(&mark, MARK "%s", dir);
  put(&command, COMMAND "%d-%llu-%llu", (int)getpid(), (unsigned long long)call->id, (unsigned long long)now_ms());
  add(&env, mark.at);
  add(&env, command.at);
  /* What commands keep for a while goes with the sandbox. */
  put(&tmp, "TMPDIR=%s/tmp", dir);
  if (!json_get(variables, "TMPDIR").at && !json_get(call->provider->env, "TMPDIR").at) add(&env, tmp.at);
  else free(tmp.at);
  add_env(&env, variables, (json){NULL, NULL});
  add_env(&env, call->provider->env, variables);
  int kind = ALPINE_ERROR_INVALID_ARGUMENT;
  if (!argv.count || argv.broken || env.broken || !*argv.at[0]) {
    failed(call, kind, "the command, or a variable's name, is malformed");
  } else {
    kind = run(call, &argv, &env, workspace, command.at);
  }
  free_texts(&argv), free_texts(&env), free(dir), free(workspace);
  return kind;
}

/* Lets no command begin any more: by a file that says so. `about` has to be there, unless it need not be. */
static int shut(call *call, const char *file, int has_to_be_there) {
  const int held = lock(call);
  if (held < 0) return ALPINE_ERROR_IO;
  const state found = state_of(call, call->sandbox);
  int kind = 0;
  if (found == RUNNING || found == EXITED) kind = raise_fence(call);
  else if (has_to_be_there) kind = is_gone(call, found);
  if (!kind && write_file(file, "")) kind = failed_io(call, file);
  close(held);
  return kind;
}

static int stop(call *call) {
  uint64_t grace = 0;
  if (!json_number(json_get(call->request, "grace_ms"), &grace)) {
    return failed(call, ALPINE_ERROR_INVALID_ARGUMENT, "`grace_ms` is a number");
  }
  char *dir = path_of(call, call->sandbox, ""), *stopped = path_of(call, call->sandbox, "stopped");
  int forced = 0, kind = shut(call, stopped, 1);
  if (!kind) kind = end_all(call, dir, grace, &forced);
  if (!kind) put(&call->reply, "{\"forced\":%s}", forced ? "true" : "false");
  free(dir), free(stopped);
  return kind;
}

static int destroy(call *call) {
  char *dir = path_of(call, call->sandbox, ""), *tombstone = path_of(call, ".destroyed", call->sandbox);
  int forced = 0, kind = shut(call, tombstone, 0);
  if (!kind) kind = end_all(call, dir, 0, &forced);
  if (!kind && remove_all(dir)) kind = failed_io(call, dir);
  if (!kind) put(&call->reply, "{}");
  free(dir), free(tombstone);
  return kind;
}

static const struct {
  uint32_t id;
  int (*work)(call *);
  int of_a_sandbox;
} METHODS[] = {
    {ALPINE_METHOD_DESCRIBE, describe, 0}, {ALPINE_METHOD_PROVISION, provision, 1},
    {ALPINE_METHOD_INSPECT, inspect, 1},   {ALPINE_METHOD_LIST, list, 0},
    {ALPINE_METHOD_EXEC, exec, 1},         {ALPINE_METHOD_STOP, stop, 1},
    {ALPINE_METHOD_DESTROY, destroy, 1},
};

/* ---- the port ---- */

static int work(call *call) {
  for (size_t i = 0; i < sizeof METHODS / sizeof *METHODS; i++) {
    if (METHODS[i].id != call->method) continue;
    if (METHODS[i].of_a_sandbox && !is_id(call->sandbox)) {
      return failed(call, ALPINE_ERROR_INVALID_ARGUMENT, "`sandbox_id` is missing or malformed");
    }
    return METHODS[i].work(call);
  }
  return failed(call, ALPINE_ERROR_UNSUPPORTED, "this provider does not have method %u", call->method);
}

/* The thread of a call: does the work, and answers. */
static void *answer(void *argument) {
  call *call = argument;
  provider *provider = call->provider;
  const int kind = work(call);
  pthread_mutex_lock(&provider->lock);
  struct call **at = &provider->calls;
  while (*at != call) at = &(*at)->next;
  *at = call->next;
  pthread_mutex_unlock(&provider->lock);
  const uint32_t frame = kind ? ALPINE_ERR : ALPINE_OK;
  alpine_port *host = &provider->host;
  if (host->send(host->ctx, call->id, frame, (uint32_t)kind, (const uint8_t *)call->reply.at, call->reply.len) == ALPINE_SENT_TOO_BIG) {
    host->send(host->ctx, call->id, ALPINE_ERR, ALPINE_ERROR_INTERNAL, NULL, 0);
  }
  close(call->wake);
  free(call->payload), free(call->sandbox), free(call->reply.at), free(call->input.at), free(call);
  pthread_mutex_lock(&provider->lock);
  provider->running--;
  pthread_cond_broadcast(&provider->idle);
  pthread_mutex_unlock(&provider->lock);
  return NULL;
}

static int32_t take_call(provider *provider, uint64_t id, uint32_t method, const uint8_t *data, size_t len) {
  call *it = calloc(1, sizeof *it);
  text payload = {0};
  if (!it) return ALPINE_SENT_WOULD_BLOCK;
  put_bytes(&payload, (const char *)data, len);
  *it = (call){.provider = provider, .id = id, .method = method, .payload = payload.at, .credit = ALPINE_CREDIT};
  const json whole = json_parse(payload.at, len), meta = json_get(whole, "meta");
  it->request = json_get(whole, "request");
  it->sandbox = json_text(json_get(it->request, "sandbox_id"));
  int32_t sent = ALPINE_SENT_BAD;
  if (it->request.at && *it->request.at == '{' && json_number(json_get(meta, "fence"), &it->fence)) {
    pthread_t thread;
    it->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_lock(&provider->lock);
    sent = provider->closed ? ALPINE_SENT_CLOSED
           : it->wake < 0 || pthread_create(&thread, NULL, answer, it) ? ALPINE_SENT_WOULD_BLOCK
                                                                      : ALPINE_SENT_OK;
    if (sent == ALPINE_SENT_OK) {
      pthread_detach(thread);
      it->next = provider->calls;
      provider->calls = it;
      provider->running++;
    } else if (it->wake >= 0) {
      close(it->wake);
    }
    pthread_mutex_unlock(&provider->lock);
  }
  if (sent != ALPINE_SENT_OK) free(it->payload), free(it->sandbox), free(it);
  return sent;
}

/* Takes what is for a call that runs. */
static int32_t take_for(provider *provider, uint64_t id, uint32_t kind, uint32_t code, const uint8_t *data, size_t len) {
  pthread_mutex_lock(&provider->lock);
  call *it = provider->calls;
  while (it && it->id != id) it = it->next;
  if (it && kind == ALPINE_CANCEL) it->cancelled = 1;
  if (it && kind == ALPINE_GRANT) it->credit += code;
  if (it && kind == ALPINE_INPUT && code == ALPINE_INPUT_EOF) it->input_over = 1;
  if (it && kind == ALPINE_INPUT && code == ALPINE_INPUT_DATA) {
    put_bytes(&it->input, (const char *)data, len);
    it->owed += len < ALPINE_MIN_CHARGE ? ALPINE_MIN_CHARGE : (uint32_t)len;
  }
  if (it && kind == ALPINE_INPUT && code == ALPINE_INPUT_SIGNAL) {
    uint64_t number = 0;
    if (json_number(json_get(json_parse(data, len), "signal"), &number) && number < 64) it->signals |= 1ull << number;
  }
  if (it) eventfd_write(it->wake, 1);
  pthread_mutex_unlock(&provider->lock);
  return it ? ALPINE_SENT_OK : ALPINE_SENT_GONE;
}

/* Takes a frame of the host: from any thread, and never for long. */
static int32_t take(void *ctx, uint64_t id, uint32_t kind, uint32_t code, const uint8_t *data, size_t len) {
  provider *provider = ctx;
  switch (kind) {
    case ALPINE_CALL: return take_call(provider, id, code, data, len);
    case ALPINE_CANCEL:
    case ALPINE_GRANT:
    case ALPINE_INPUT: return take_for(provider, id, kind, code, data, len);
    case ALPINE_PING: return provider->host.send(provider->host.ctx, id, ALPINE_PONG, code, NULL, 0);
    default: return ALPINE_SENT_UNSUPPORTED;
  }
}

/* Cancels what still runs, and waits for its answers. */
static int32_t end(void *ctx, uint32_t deadline_ms) {
  provider *provider = ctx;
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += deadline_ms / 1000;
  until.tv_nsec += (long)(deadline_ms % 1000) * 1000000;
  until.tv_sec += until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  pthread_mutex_lock(&provider->lock);
  provider->closed = 1;
  for (call *it = provider->calls; it; it = it->next) {
    it->cancelled = 1;
    eventfd_write(it->wake, 1);
  }
  while (provider->running && !pthread_cond_timedwait(&provider->idle, &provider->lock, &until)) continue;
  pthread_mutex_unlock(&provider->lock);
  return ALPINE_SENT_OK;
}

/* Why it can't be opened, as an error of call 0. */
static int32_t refuse(const alpine_port *host, const char *why) {
  host->send(host->ctx, 0, ALPINE_ERR, ALPINE_ERROR_CONFIG_INVALID, (const uint8_t *)why, strlen(why));
  return ALPINE_SENT_BAD;
}

static int32_t open_provider(uint32_t abi, const alpine_port *host, const uint8_t *config, size_t len, alpine_port *out) {
  if (abi != 1) return ALPINE_SENT_UNSUPPORTED;
  text copy = {0};
  put_bytes(&copy, (const char *)config, len);
  const json whole = json_parse(copy.at, len), place = json_get(whole, "place");
  json settings = json_get(whole, "config");
  char *root = json_text(json_get(settings, "root")), *state = json_text(json_get(place, "state"));
  const char *why = !whole.at ? "the configuration is no JSON" : NULL;
  if (!why && settings.at && *settings.at != '{' && *settings.at != 'n') why = "the configuration is no table";
  for (json rest = settings, name, value; !why && rest.at && *rest.at != 'n' && json_next(&rest, &name, &value);) {
    if (name.end - name.at != 6 || memcmp(name.at, "\"root\"", 6) || !root) why = "the configuration takes `root`, a path, and nothing else";
  }
  text path = {0};
  if (root) put(&path, "%s", root);
  else if (state) put(&path, "%s/sandboxes", state);
  if (!why && (!path.at || *path.at != '/')) why = "the directory of sandboxes has to be an absolute path";
  free(root), free(state);
  provider *it = why ? NULL : calloc(1, sizeof *it);
  if (!it) {
    free(path.at), free(copy.at);
    return refuse(host, why ? why : "no memory is left");
  }
  *it = (provider){.host = *host, .root = path.at, .open = copy.at, .env = json_get(place, "env")};
  pthread_mutex_init(&it->lock, NULL);
  pthread_cond_init(&it->idle, NULL);
  signal(SIGPIPE, SIG_IGN);
  *out = (alpine_port){.struct_size = sizeof *out, .abi = 1, .ctx = it, .send = take, .close = end};
  return ALPINE_SENT_OK;
}

const alpine_provider *alpine_provider_v1(const alpine_host_info *host) {
  static const alpine_provider provider = {
      .magic = ALPINE_MAGIC, .struct_size = sizeof provider, .abi_min = 1, .abi_max = 1,
      .name = NAME, .version = VERSION, .build = "cc " __VERSION__, .open = open_provider,
  };
  return host && host->magic == ALPINE_MAGIC ? &provider : NULL;
}
