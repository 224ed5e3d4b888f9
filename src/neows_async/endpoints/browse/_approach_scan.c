/* Scans a page for its lists of close approaches, which are nine tenths of it.

   One function, `cut`: `_approach_scan.pyi` describes its argument and result. It reads the body once, from the first
   byte to the last, without the GIL. If anything deviates from the known layout, it returns None, and the page is
   parsed as JSON.

   Memory safety: writes go to `Found` only, whose sizes `allocate` derives from the size of the body. Reads stay between
   a cursor's `at` and `end`, and each function that moves `at` checks `end` first. */

#define Py_LIMITED_API 0x030B0000 /* one binary for Python 3.11 and all later versions */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPENING "\"close_approach_data\":["
#define LEAST_APPROACH 280 /* bytes of the shortest approach; the text between its values alone has 272 */
#define NUMBER_CHARS 64    /* envelope.NUMBER_CHARS */
#define INTEGER_DIGITS 18  /* any number with these many digits fits into 64 bits */
#define LIST_DIGITS 10     /* digits of a list's number: a body has less than 2^31 bytes */
#define NUMBERS 3          /* numbers of an approach: miss distance in au and in km, velocity in km/s */
#define AU 0
#define KM 1
#define KM_S 2

typedef struct {
    const char *at, *end;
} Cursor;

typedef struct {
    size_t lists, approaches, most_approaches;
    int32_t *counts; /* approaches of each list */
    int32_t *days;   /* since 1970-01-01 */
    int64_t *epochs_ms;
    int32_t *number_ends[NUMBERS]; /* of each text in `numbers` */
    int32_t *body_ends;            /* likewise in `bodies`, after a 0 */
    char *rest, *numbers[NUMBERS], *bodies;
    size_t rest_size, numbers_size[NUMBERS], bodies_size;
} Found;

static void release(Found *found) {
    free(found->counts);
    free(found->days);
    free(found->epochs_ms);
    free(found->body_ends);
    free(found->rest);
    free(found->bodies);
    for (int kind = 0; kind < NUMBERS; kind++) {
        free(found->number_ends[kind]);
        free(found->numbers[kind]);
    }
}

/* Memory for the most that a body of this size can hold. Pages of memory that are never written cost nothing. */
static int allocate(Found *found, size_t size) {
    size_t most_lists = size / (sizeof OPENING - 1) + 1;
    size_t most = found->most_approaches = size / LEAST_APPROACH + 1;
    found->counts = malloc(most_lists * sizeof(int32_t));
    found->days = malloc(most * sizeof(int32_t));
    found->epochs_ms = malloc(most * sizeof(int64_t));
    found->body_ends = calloc(most + 1, sizeof(int32_t));
    found->rest = malloc(size + most_lists * LIST_DIGITS + 1);
    found->bodies = malloc(size + 1);
    int enough =
        found->counts && found->days && found->epochs_ms && found->body_ends && found->rest && found->bodies;
    for (int kind = 0; kind < NUMBERS; kind++) {
        found->number_ends[kind] = malloc(most * sizeof(int32_t));
        found->numbers[kind] = malloc(size + 1);
        enough = enough && found->number_ends[kind] && found->numbers[kind];
    }
    return enough;
}

/* Step over exactly this text, of at most 48 bytes. A macro, since compilers turn a comparison of eight bytes with a
   constant into one instruction, and a longer one into a call of memcmp. */
#define LITERAL(cursor, text)                                                                                          \
    ((size_t)((cursor)->end - (cursor)->at) >= SIZE(text) && SAME((cursor)->at, text, 0) &&                            \
     SAME((cursor)->at, text, 8) && SAME((cursor)->at, text, 16) && SAME((cursor)->at, text, 24) &&                    \
     SAME((cursor)->at, text, 32) && SAME((cursor)->at, text, 40) && sizeof(char[SIZE(text) <= 48 ? 1 : -1]) &&        \
     ((cursor)->at += SIZE(text), 1))
#define SIZE(text) (sizeof "" text - 1)
#define SAME(at, text, from)                                                                                           \
    (SIZE(text) <= (from) || memcmp((at) + (from), &text[(from) % sizeof text], PIECE(text, from)) == 0)
#define PIECE(text, from) (SIZE(text) <= (from) ? 0 : SIZE(text) - (from) < 8 ? SIZE(text) - (from) : 8)

/* Compare eight bytes at a time: the top bit of each byte of the result is the answer for this byte. The bytes of `word`
   are below 0x80, so there is no carry from one byte to the next. */
#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))
#define TOP EACH(0x80)
#define AT_LEAST(word, byte) (((word) | TOP) - EACH(byte))
#define AT_MOST(word, byte) ((EACH(byte) | TOP) - (word))
#define OTHER_THAN(word, byte) ((((word) ^ EACH(byte)) | TOP) - EACH(1))

static inline uint64_t word_at(const char *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* Step over the characters of a JSON string, up to its closing quote. Escapes and non-ASCII characters end the scan. */
static inline int string(Cursor *cursor) {
    const char *at = cursor->at;
    for (; cursor->end - at >= 8; at += 8) {
        uint64_t word = word_at(at);
        if (word & TOP || ~(AT_LEAST(word, 0x20) & OTHER_THAN(word, '"') & OTHER_THAN(word, '\\')) & TOP)
            break;
    }
    for (; at < cursor->end && *at != '"'; at++)
        if ((unsigned char)*at < 0x20 || (unsigned char)*at > 0x7F || *at == '\\')
            return 0;
    cursor->at = at;
    return at < cursor->end;
}

static inline int digits(const char *at, int count, int *value) {
    *value = 0;
    for (int i = 0; i < count; i++) {
        if (at[i] < '0' || at[i] > '9')
            return 0;
        *value = *value * 10 + (at[i] - '0');
    }
    return 1;
}

/* A day, YYYY-MM-DD, of the years 0001 to 9999 of the Gregorian calendar. */
static inline int day(Cursor *cursor, int32_t *days) {
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    const char *text = cursor->at;
    int year, month, date;
    if (cursor->end - text < 10 || text[4] != '-' || text[7] != '-' || !digits(text, 4, &year) ||
        !digits(text + 5, 2, &month) || !digits(text + 8, 2, &date) || year < 1 || month < 1 || month > 12)
        return 0;
    int leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (date < 1 || date > lengths[month - 1] + (leap && month == 2))
        return 0;
    int past = year - 1;
    *days = past * 365 + past / 4 - past / 100 + past / 400 + before[month - 1] + (leap && month > 2) + date - 1 -
            719162; /* days from 0001-01-01 to 1970-01-01 */
    cursor->at += 10;
    return 1;
}

/* A JSON integer. */
static inline int integer(Cursor *cursor, int64_t *value) {
    const char *at = cursor->at;
    int negative = at < cursor->end && *at == '-';
    const char *first = at += negative;
    int64_t sum = 0;
    for (; at < cursor->end && *at >= '0' && *at <= '9'; at++) {
        if (at - first >= INTEGER_DIGITS)
            return 0;
        sum = sum * 10 + (*at - '0');
    }
    if (at == first || (*first == '0' && at - first > 1))
        return 0;
    *value = negative ? -sum : sum;
    cursor->at = at;
    return 1;
}

/* Text of characters that occur in numbers. Arrow checks later whether it is a number. */
static inline int number(Cursor *cursor, Found *found, int kind) {
    const char *from = cursor->at, *at = from;
    for (; cursor->end - at >= 8; at += 8) {
        uint64_t word = word_at(at);
        if (word & TOP || ~(AT_LEAST(word, '-') & OTHER_THAN(word, '/') & AT_MOST(word, '9')) & TOP)
            break;
    }
    while (at < cursor->end && ((*at >= '0' && *at <= '9') || *at == '.' || *at == '-' || *at == 'e' || *at == 'E'))
        at++;
    if (at == from || at - from > NUMBER_CHARS)
        return 0;
    memcpy(found->numbers[kind] + found->numbers_size[kind], from, (size_t)(at - from));
    found->numbers_size[kind] += (size_t)(at - from);
    found->number_ends[kind][found->approaches] = (int32_t)found->numbers_size[kind];
    cursor->at = at;
    return 1;
}

static int body(Cursor *cursor, Found *found) {
    const char *from = cursor->at;
    if (!string(cursor))
        return 0;
    size_t size = (size_t)(cursor->at - from);
    memcpy(found->bodies + found->bodies_size, from, size);
    found->bodies_size += size;
    found->body_ends[found->approaches + 1] = (int32_t)found->bodies_size;
    return 1;
}

static int approach(Cursor *cursor, Found *found) {
    size_t n = found->approaches;
    if (n == found->most_approaches)
        return 0;
    if (!(LITERAL(cursor, "{\"close_approach_date\":\"") && day(cursor, &found->days[n]) &&
          LITERAL(cursor, "\",\"close_approach_date_full\":\"") && string(cursor) &&
          LITERAL(cursor, "\",\"epoch_date_close_approach\":") && integer(cursor, &found->epochs_ms[n]) &&
          LITERAL(cursor, ",\"relative_velocity\":{\"kilometers_per_second\":\"") && number(cursor, found, KM_S) &&
          LITERAL(cursor, "\",\"kilometers_per_hour\":\"") && string(cursor) &&
          LITERAL(cursor, "\",\"miles_per_hour\":\"") && string(cursor) &&
          LITERAL(cursor, "\"},\"miss_distance\":{\"astronomical\":\"") && number(cursor, found, AU) &&
          LITERAL(cursor, "\",\"lunar\":\"") && string(cursor) &&
          LITERAL(cursor, "\",\"kilometers\":\"") && number(cursor, found, KM) &&
          LITERAL(cursor, "\",\"miles\":\"") && string(cursor) &&
          LITERAL(cursor, "\"},\"orbiting_body\":\"") && body(cursor, found) && LITERAL(cursor, "\"}")))
        return 0;
    found->approaches++;
    return 1;
}

/* From after a list's opening bracket to its closing bracket. */
static int list(Cursor *cursor, Found *found) {
    size_t before = found->approaches;
    if (cursor->at < cursor->end && *cursor->at != ']')
        do {
            if (!approach(cursor, found))
                return 0;
        } while (LITERAL(cursor, ","));
    found->counts[found->lists++] = (int32_t)(found->approaches - before);
    return cursor->at < cursor->end && *cursor->at == ']';
}

static const char *after_next_opening(const Cursor *cursor) {
    const size_t size = sizeof OPENING - 1;
    const char *at = cursor->at;
    while ((at = memchr(at, '[', (size_t)(cursor->end - at))) != NULL) {
        at++;
        if ((size_t)(at - cursor->at) >= size && memcmp(at - size, OPENING, size) == 0)
            return at;
    }
    return NULL;
}

static int page(Cursor *cursor, Found *found) {
    for (;;) {
        const char *next = after_next_opening(cursor);
        const char *stop = next ? next : cursor->end;
        memcpy(found->rest + found->rest_size, cursor->at, (size_t)(stop - cursor->at));
        found->rest_size += (size_t)(stop - cursor->at);
        cursor->at = stop;
        if (!next)
            return 1;
        found->rest_size += (size_t)sprintf(found->rest + found->rest_size, "%zu", found->lists);
        if (!list(cursor, found))
            return 0;
    }
}

/* The text of all numbers, kind by kind, and their offsets, the first of which is 0. */
static int concatenate_numbers(const Found *found, PyObject **ends, PyObject **numbers) {
    size_t size = 0;
    for (int kind = 0; kind < NUMBERS; kind++)
        size += found->numbers_size[kind];
    *ends = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)((NUMBERS * found->approaches + 1) * sizeof(int32_t)));
    *numbers = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (!*ends || !*numbers) {
        Py_XDECREF(*ends);
        Py_XDECREF(*numbers);
        return 0;
    }
    char *text = PyBytes_AsString(*numbers), *end = PyBytes_AsString(*ends);
    int32_t before = 0;
    memcpy(end, &before, sizeof before);
    for (int kind = 0; kind < NUMBERS; kind++) {
        for (size_t n = 0; n < found->approaches; n++) {
            int32_t sum = before + found->number_ends[kind][n];
            memcpy(end += sizeof sum, &sum, sizeof sum);
        }
        memcpy(text + before, found->numbers[kind], found->numbers_size[kind]);
        before += (int32_t)found->numbers_size[kind];
    }
    return 1;
}

static PyObject *cut(PyObject *module, PyObject *body) {
    (void)module;
    Found found = {0};
    PyObject *result = NULL;
    char *text;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(body, &text, &size) < 0)
        return NULL;
    if (size > INT32_MAX)
        Py_RETURN_NONE;
    if (!allocate(&found, (size_t)size)) {
        release(&found);
        return PyErr_NoMemory();
    }
    Cursor cursor = {text, text + size};
    int is_regular;
    Py_BEGIN_ALLOW_THREADS
    is_regular = page(&cursor, &found);
    Py_END_ALLOW_THREADS
    if (is_regular) {
#define BYTES(of, count) (const char *)found.of, (Py_ssize_t)((count) * sizeof *found.of)
        PyObject *ends, *numbers;
        if (concatenate_numbers(&found, &ends, &numbers))
            result = Py_BuildValue("(y#y#y#y#y#y#NN)", BYTES(rest, found.rest_size), BYTES(counts, found.lists),
                                   BYTES(days, found.approaches), BYTES(epochs_ms, found.approaches),
                                   BYTES(body_ends, found.approaches + 1), BYTES(bodies, found.bodies_size), ends,
                                   numbers);
#undef BYTES
    } else {
        result = Py_None;
        Py_INCREF(result);
    }
    release(&found);
    return result;
}

static PyMethodDef methods[] = {{"cut", cut, METH_O, NULL}, {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "_approach_scan", .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC PyInit__approach_scan(void) { return PyModuleDef_Init(&definition); }
