// flags.h: one table of flags makes the parser, --help, the start-up table and the `config` record of log.jsonl.
//
// Each flag names the commands it belongs to. A preset is a string of flags read before the command line. Numbers are
// parsed to their last character and must lie in the flag's range; an unknown flag is an error that names the nearest
// known one. `--flag value` and `--flag=value` are the same.
#pragma once
#include <stddef.h>

typedef enum { FLAG_STRING, FLAG_LONG, FLAG_DOUBLE, FLAG_BOOL, FLAG_CHOICE } FlagType;
typedef struct {
    const char *name; FlagType type;
    // offset in the caller's struct of const char *, long, double, bool, size_t (a row's index)
    size_t field;
    const char *commands;    // separated by spaces, or "all"
    const char *fallback;    // the default, as text; NULL: none
    const char *choices;     // of a number its range, "lo..hi", "lo.." or ">lo..<hi", bounds included unless marked.
                             // Counts end at 1e9: they fit an int, and two of them multiply in 64 bits.
                             // "word|lo..hi": or that word, which stands in the field as NaN, of a whole number as -1.
    const char *help;
    const void *rows; size_t row_size; // FLAG_CHOICE: a table of rows, one of which is named
} Flag;

// Fills args from defaults, then --preset (looked up by preset(name), NULL: unknown), then argv. Dies by usage().
void flags_parse(void *args, const Flag *table, size_t n, const char *command, int argc, char **argv,
                 const char *(*preset)(const char *));
// Reads one from the front of text; false: none stands there, or one beyond 64 bits.
bool whole_number(const char *text, char **end, long *x);
int flag_given(const char *name); // by the last flags_parse: 2 on the command line, 1 only in the preset, 0 nowhere
void flags_help(const Flag *table, size_t n, const char *command, const char *summary, const char *example);
void flags_table(const void *args, const Flag *table, size_t n, const char *command);   // to stdout
json_t *flags_json(const void *args, const Flag *table, size_t n, const char *command); // a new object
const char *require(const char *value, const char *flag); // the value of a flag that must be given; dies by usage()

#ifdef VBON_IMPLEMENTATION
#include <ctype.h>

const char *require(const char *value, const char *flag)
{
    if (!value || !*value) usage("--%s is required", flag);
    return value;
}

static struct { const char *name; int where; } given[256];
static size_t n_given;
int flag_given(const char *name)
{
    for (size_t i = n_given; i > 0; i--) if (!strcmp(given[i - 1].name, name)) return given[i - 1].where;
    return 0;
}

static bool word_in(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; p; p = strchr(p, ' '), p = p ? p + 1 : NULL)
        if (!strncmp(p, word, n) && (!p[n] || p[n] == ' ')) return true;
    return false;
}
static bool belongs(const Flag *f, const char *command)
{
    return !strcmp(f->commands, "all") || word_in(f->commands, command);
}

static size_t edit_distance(const char *a, const char *b) // Levenshtein
{
    size_t n = strlen(a), m = strlen(b), row[65];
    if (n > 64 || m > 64) return 99;
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t up = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
            if (up + 1 < best) best = up + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
            diagonal = up;
        }
    }
    return row[m];
}

// The word that a number's flag takes in place of a number; length 0: none.
static size_t word_length(const Flag *f)
{
    const char *end = f->choices && f->type != FLAG_CHOICE ? strchr(f->choices, '|') : NULL;
    return end ? (size_t)(end - f->choices) : 0;
}
static bool takes_word(const Flag *f, const char *value)
{
    size_t n = word_length(f);
    return n && strlen(value) == n && !strncmp(value, f->choices, n);
}
static bool has_word(const Flag *f, const char *field) // whether the word was given
{
    return word_length(f) && (f->type == FLAG_LONG ? *(const long *)field == -1 : isnan(*(const double *)field));
}

static void check_range(const Flag *f, const char *text, double x)
{
    const char *low = f->choices + (word_length(f) ? word_length(f) + 1 : 0), *high = strstr(f->choices, "..") + 2;
    bool above = *low == '>', below = *high == '<';
    double lo = strtod(low + above, NULL), hi = *high ? strtod(high + below, NULL) : INFINITY;
    if ((above ? x > lo : x >= lo) && (below ? x < hi : x <= hi)) return;
    const char *least = above ? "more than" : "at least", *most = below ? "less than" : "at most";
    const char *word = word_length(f) ? format("%.*s, or ", (int)word_length(f), f->choices) : "";
    if (isfinite(hi)) usage("--%s %s: must be %s%s %g and %s %g", f->name, text, word, least, lo, most, hi);
    usage("--%s %s: must be %s%s %g", f->name, text, word, least, lo);
}

bool whole_number(const char *text, char **end, long *x)
{
    errno = 0;
    *x = strtol(text, end, 10);
    return *end != text && !errno && !isspace((unsigned char)*text);
}

static const char *choices(const Flag *f) // "a|b|c"
{
    static char text[512];
    const char *name;
    size_t at = 0;
    for (size_t i = 0; (name = row_name(f->rows, f->row_size, i)) && at < sizeof text; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s", i ? "|" : "", name);
    return text;
}
static const char *chosen(const void *args, const Flag *f)
{
    return row_name(f->rows, f->row_size, *(const size_t *)((const char *)args + f->field));
}

static void set_flag(void *args, const Flag *f, const char *value)
{
    char *field = (char *)args + f->field, *end = NULL;
    bool good = false;
    const char *name;
    if (takes_word(f, value)) {
        if (f->type == FLAG_LONG) *(long *)field = -1;
        else *(double *)field = NAN;
        return;
    }
    switch (f->type) {
    case FLAG_STRING: { // it goes into headers and records, which are JSON
        size_t n = strlen(value), bad = utf8_valid(value, n);
        if (bad < n) usage("--%s: byte %zu is not UTF-8: is the terminal's encoding another?", f->name, bad + 1);
        *(const char **)field = value;
        return;
    }
    case FLAG_CHOICE:
        for (size_t i = 0; (name = row_name(f->rows, f->row_size, i)); i++)
            if (!strcmp(name, value)) { *(size_t *)field = i; return; }
        usage("--%s %s: must be one of %s", f->name, value, choices(f));
    case FLAG_LONG: good = whole_number(value, &end, (long *)field); break;
    case FLAG_DOUBLE:
        *(double *)field = strtod(value, &end); // what is too small becomes 0 or nearly so, and meets the range as that
        good = end != value && isfinite(*(double *)field) && !isspace((unsigned char)*value);
        break;
    case FLAG_BOOL: *(bool *)field = !strcmp(value, "true"); return;
    }
    const char *number = f->type == FLAG_LONG ? "whole number" : "number";
    bool wrong = !good || *end;
    if (wrong && word_length(f))
        usage("--%s %s: neither \"%.*s\" nor a %s", f->name, value, (int)word_length(f), f->choices, number);
    if (wrong) usage("--%s %s: not a %s", f->name, value, number);
    if (f->choices) check_range(f, value, f->type == FLAG_LONG ? (double)*(long *)field : *(double *)field);
}

NORETURN static void unknown_flag(const Flag *table, size_t n, const char *command, const char *name)
{
    const char *nearest = "help";
    size_t least = edit_distance(name, nearest);
    for (size_t k = 0; k < n; k++) {
        size_t d = belongs(&table[k], command) ? edit_distance(name, table[k].name) : SIZE_MAX;
        if (d < least) { least = d; nearest = table[k].name; }
    }
    usage("unknown flag --%s: did you mean --%s? see vbon %s --help", name, nearest, command);
}

static void read_flags(void *args, const Flag *table, size_t n, const char *command, size_t argc, char **argv,
                       int where)
{
    for (size_t i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (strncmp(word, "--", 2)) usage("unexpected \"%s\": flags begin with --; see vbon %s --help", word, command);
        char *name = xstrdup(word + 2), *value = strchr(name, '=');
        if (value) *value++ = 0;
        const Flag *f = NULL;
        bool no = false;
        for (size_t k = 0; k < n; k++) {
            const Flag *t = &table[k];
            bool negated = t->type == FLAG_BOOL && !strncmp(name, "no-", 3) && !strcmp(name + 3, t->name);
            if (!strcmp(name, t->name) || negated) { f = t; no = negated; }
        }
        if (!f) unknown_flag(table, n, command, name);
        if (!belongs(f, command)) usage("--%s belongs to: %s; not to %s", name, f->commands, command);
        if (f->type == FLAG_BOOL) {
            if (value) usage("--%s takes no value: --%s or --no-%s", f->name, f->name, f->name);
            set_flag(args, f, no ? "false" : "true");
        } else {
            if (!value && i + 1 < argc) value = argv[++i];
            if (!value) usage("--%s needs a value: %s", f->name, f->help);
            set_flag(args, f, value); // values live as long as argv, or as this copy of name
        }
        if (n_given < sizeof given / sizeof *given) { given[n_given].name = f->name; given[n_given++].where = where; }
        if (!strchr(word, '=')) free(name);
    }
}

void flags_parse(void *args, const Flag *table, size_t n, const char *command, int argc, char **argv,
                 const char *(*preset)(const char *))
{
    n_given = 0;
    for (size_t i = 0; i < n; i++) if (table[i].fallback) set_flag(args, &table[i], table[i].fallback);
    for (int i = 0; i < argc; i++) {
        const char *name = !strcmp(argv[i], "--preset") && i + 1 < argc ? argv[i + 1]
            : !strncmp(argv[i], "--preset=", 9)                         ? argv[i] + 9
                                                                        : NULL;
        if (!name) continue;
        const char *flags = preset ? preset(name) : NULL;
        if (!flags) usage("--preset %s: there is no such preset; see vbon %s --help", name, command);
        char **words = NULL;
        for (char *w = strtok(xstrdup(flags), " "); w; w = strtok(NULL, " ")) arrput(words, w);
        read_flags(args, table, n, command, arrlenu(words), words, 1);
        arrfree(words);
    }
    read_flags(args, table, n, command, (size_t)argc, argv, 2);
}

void flags_help(const Flag *table, size_t n, const char *command, const char *summary, const char *example)
{
    printf("vbon %s: %s\n\n", command, summary);
    for (size_t i = 0; i < n; i++) {
        const Flag *f = &table[i];
        if (!belongs(f, command)) continue;
        static const char *const kinds[] = {"TEXT", "INT", "NUMBER", "", ""};
        char left[600];
        snprintf(left, sizeof left, "--%s %s", f->name, f->type == FLAG_CHOICE ? choices(f) : kinds[f->type]);
        printf(strlen(left) > 30 ? "  %s\n%33s%s" : "  %-30s%1s%s", left, "", f->help);
        if (f->fallback && *f->fallback && f->type != FLAG_BOOL) printf(" [%s]", f->fallback);
        if (f->choices && f->type != FLAG_CHOICE) printf(" (%s)", f->choices);
        putchar('\n');
        const char *choice;
        for (size_t k = 0; f->rows && (choice = row_name(f->rows, f->row_size, k)); k++) {
            const char *means = ((const char *const *)(const void *)((const char *)f->rows + k * f->row_size))[1];
            if (means) printf("  %-30s   %s: %s\n", "", choice, means);
        }
    }
    printf("\nexample:\n  %s\n", example);
}

static void value_text(char *out, size_t size, const void *args, const Flag *f)
{
    const char *field = (const char *)args + f->field, *s;
    if (has_word(f, field)) { snprintf(out, size, "%.*s", (int)word_length(f), f->choices); return; }
    switch (f->type) {
    case FLAG_LONG: snprintf(out, size, "%ld", *(const long *)field); break;
    case FLAG_DOUBLE: snprintf(out, size, "%.9g", *(const double *)field); break;
    case FLAG_BOOL: snprintf(out, size, "%s", *(const bool *)field ? "true" : "false"); break;
    case FLAG_CHOICE: snprintf(out, size, "%s", chosen(args, f)); break;
    case FLAG_STRING: s = *(const char *const *)field; snprintf(out, size, "%s", s ? s : "-");
    }
}

void flags_table(const void *args, const Flag *table, size_t n, const char *command)
{
    const char *line = "+----------------+------------------------------------------------------+";
    printf("%s\n| %-14s | %-52s |\n%s\n", line, "vbon", command, line);
    for (size_t i = 0; i < n; i++) {
        if (!belongs(&table[i], command)) continue;
        char v[512];
        value_text(v, sizeof v, args, &table[i]);
        printf("| %-14s | %-52s |\n", table[i].name, v);
    }
    printf("%s\n", line);
    fflush(stdout);
}

json_t *flags_json(const void *args, const Flag *table, size_t n, const char *command)
{
    json_t *j = json_object();
    for (size_t i = 0; i < n; i++) {
        const Flag *f = &table[i];
        const char *field = (const char *)args + f->field;
        if (!belongs(f, command)) continue;
        json_t *v = NULL;
        if (has_word(f, field)) v = json_stringn(f->choices, word_length(f));
        else switch (f->type) {
        case FLAG_LONG: v = json_integer(*(const long *)field); break;
        case FLAG_DOUBLE: v = json_number(*(const double *)field, f->name, "a flag's value must be a number"); break;
        case FLAG_BOOL: v = json_boolean(*(const bool *)field); break;
        case FLAG_CHOICE: v = json_string(chosen(args, f)); break;
        case FLAG_STRING: v = *(const char *const *)field ? json_string(*(const char *const *)field) : json_null();
        }
        json_object_set_new(j, f->name, v ? v : json_null());
    }
    return j;
}
#endif
