/* A small reader and writer of JSON: values are slices of the text, nothing is allocated to read them. */
#ifndef JSON_H
#define JSON_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A value: the bytes from `at` to `end`. None is there where `at` is NULL. */
typedef struct json {
  const char *at, *end;
} json;

enum { JSON_DEEPEST = 64 };

static inline const char *json_space(const char *at, const char *end) {
  while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
  return at;
}

static inline int json_hex4(const char *at, const char *end) {
  if (end - at < 4) return -1;
  int value = 0;
  for (int i = 0; i < 4; i++) {
    const char c = at[i];
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

/* Each of the next four gives the end of what begins at `at`, or NULL where that is malformed. */
static inline const char *json_skip_text(const char *at, const char *end) {
  for (at++; at < end && *at != '"'; at++) {
    if ((unsigned char)*at < 0x20) return NULL;
    if (*at != '\\') continue;
    if (++at == end || !strchr("\"\\/bfnrtu", *at) || *at == '\0') return NULL;
    if (*at == 'u') {
      if (json_hex4(at + 1, end) < 0) return NULL;
      at += 4;
    }
  }
  return at < end ? at + 1 : NULL;
}

static inline const char *json_skip_number(const char *at, const char *end) {
  const char *digits = at += at < end && *at == '-';
  while (at < end && *at >= '0' && *at <= '9') at++;
  if (at == digits || (*digits == '0' && at - digits > 1)) return NULL;
  if (at < end && *at == '.') {
    digits = ++at;
    while (at < end && *at >= '0' && *at <= '9') at++;
    if (at == digits) return NULL;
  }
  if (at < end && (*at == 'e' || *at == 'E')) {
    at++;
    if (at < end && (*at == '+' || *at == '-')) at++;
    digits = at;
    while (at < end && *at >= '0' && *at <= '9') at++;
    if (at == digits) return NULL;
  }
  return at;
}

static inline const char *json_skip(const char *at, const char *end, int depth);

static inline const char *json_skip_all(const char *at, const char *end, int depth) {
  const char open = *at, close = open == '{' ? '}' : ']';
  at = json_space(at + 1, end);
  if (at < end && *at == close) return at + 1;
  while (at < end) {
    if (open == '{') {
      if (*at != '"' || !(at = json_skip_text(at, end))) return NULL;
      at = json_space(at, end);
      if (at == end || *at != ':') return NULL;
      at = json_space(at + 1, end);
    }
    if (!(at = json_skip(at, end, depth + 1))) return NULL;
    at = json_space(at, end);
    if (at < end && *at == close) return at + 1;
    if (at == end || *at != ',') return NULL;
    at = json_space(at + 1, end);
  }
  return NULL;
}

static inline const char *json_skip(const char *at, const char *end, int depth) {
  static const char *const words[] = {"true", "false", "null"};
  if (at == end || depth > JSON_DEEPEST) return NULL;
  if (*at == '"') return json_skip_text(at, end);
  if (*at == '{' || *at == '[') return json_skip_all(at, end, depth);
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    const size_t len = strlen(words[i]);
    if ((size_t)(end - at) >= len && !memcmp(at, words[i], len)) return at + len;
  }
  return json_skip_number(at, end);
}

/* The one value that a text is; none where it is malformed. What is read out of it needs no more checks. */
static inline json json_parse(const void *text, size_t len) {
  const char *end = (const char *)text + len;
  const char *at = len ? json_space(text, end) : end, *over = json_skip(at, end, 0);
  if (!over || json_space(over, end) != end) return (json){NULL, NULL};
  return (json){at, over};
}

/* The next member of an object, or, without `name`, item of an array. `rest` is the whole at first. */
static inline int json_next(json *rest, json *name, json *value) {
  if (!rest->at || (*rest->at != (name ? '{' : '[') && *rest->at != ',')) return 0;
  const char *at = json_space(rest->at + 1, rest->end);
  if (at >= rest->end || *at == '}' || *at == ']') return 0;
  if (name) {
    const char *over = json_skip_text(at, rest->end);
    *name = (json){at, over};
    at = json_space(json_space(over, rest->end) + 1, rest->end);
  }
  const char *over = json_skip(at, rest->end, 0);
  *value = (json){at, over};
  rest->at = json_space(over, rest->end);
  return 1;
}

/* The text of a value, to be freed; NULL where it is no text, or holds what a text of C can't. */
static inline char *json_text(json value) {
  if (!value.at || *value.at != '"') return NULL;
  char *text = malloc((size_t)(value.end - value.at)), *to = text;
  for (const char *at = value.at + 1; text && at < value.end - 1; at++) {
    if (*at != '\\') {
      *to++ = *at;
      continue;
    }
    static const char from[] = "bfnrt", into[] = "\b\f\n\r\t";
    const char *found = strchr(from, *++at);
    if (*at != 'u') {
      *to++ = found ? into[found - from] : *at;
      continue;
    }
    long code = json_hex4(at + 1, value.end);
    at += 4;
    if (code >= 0xd800 && code < 0xdc00 && value.end - at > 6 && at[1] == '\\' && at[2] == 'u') {
      const int low = json_hex4(at + 3, value.end);
      if (low >= 0xdc00 && low < 0xe000) {
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        at += 6;
      }
    }
    if (code == 0 || (code >= 0xd800 && code < 0xe000)) return free(text), NULL;
    if (code < 0x80) {
      *to++ = (char)code;
    } else {
      const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
      *to++ = (char)((0xff00 >> (more + 1) & 0xff) | code >> 6 * more);
      for (int i = more - 1; i >= 0; i--) *to++ = (char)(0x80 | (code >> 6 * i & 0x3f));
    }
  }
  if (text) *to = '\0';
  return text;
}

/* The member of that name; none where there is none, or `object` is none. */
static inline json json_get(json object, const char *wanted) {
  json name, value, found = {NULL, NULL};
  if (!object.at || *object.at != '{') return found;
  while (json_next(&object, &name, &value)) {
    char *text = json_text(name);
    if (text && !strcmp(text, wanted)) found = value;
    free(text);
  }
  return found;
}

/* Reads a whole number that is not negative; 0 where there is none. */
static inline int json_number(json value, uint64_t *number) {
  *number = 0;
  for (const char *at = value.at; at < value.end; at++) {
    if (*at < '0' || *at > '9' || *number > (UINT64_MAX - 9) / 10) return 0;
    *number = *number * 10 + (uint64_t)(*at - '0');
  }
  return value.at != NULL;
}

static inline int json_is_true(json value) { return value.at && *value.at == 't'; }

/* What is written, to be freed. */
typedef struct text {
  char *at;
  size_t len, room;
} text;

static inline void put_bytes(text *to, const char *bytes, size_t len) {
  if (len > SIZE_MAX / 4 - to->len) abort();
  if (to->len + len + 1 > to->room) {
    const size_t room = (to->len + len + 1) * 2;
    char *at = realloc(to->at, room);
    if (!at) abort();
    to->at = at;
    to->room = room;
  }
  if (len) memcpy(to->at + to->len, bytes, len);
  to->at[to->len += len] = '\0';
}

__attribute__((format(printf, 2, 3))) static inline void put(text *to, const char *format, ...) {
  char *text = NULL;
  va_list arguments;
  va_start(arguments, format);
  const int len = vasprintf(&text, format, arguments);
  va_end(arguments);
  if (len < 0) abort();
  put_bytes(to, text, (size_t)len);
  free(text);
}

/* A text as JSON, with its quotes. */
static inline void put_text(text *to, const char *it) {
  put_bytes(to, "\"", 1);
  for (; *it; it++) {
    if (*it == '"' || *it == '\\') put_bytes(to, "\\", 1);
    if ((unsigned char)*it < 0x20) put(to, "\\u%04x", *it);
    else put_bytes(to, it, 1);
  }
  put_bytes(to, "\"", 1);
}

#endif
