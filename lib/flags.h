// flags.h: one table of flags makes the parser, --help, the start-up table, the `config` record of log.jsonl and the
// shell's completions.
//
// Each flag names the commands it belongs to; one that means something else to another command has a row for each, so
// that help and default are that command's. A row of type FLAG_GROUP is the heading of those below it. A preset is a
// string of flags read before the command line. Numbers are parsed to their last character and must lie in the flag's
// range; an unknown flag is an error that names the nearest known one. `--flag value` and `--flag=value` are the same.
#pragma once
#include <stddef.h>

typedef enum { FLAG_STRING, FLAG_LONG, FLAG_DOUBLE, FLAG_BOOL, FLAG_CHOICE, FLAG_GROUP } FlagType;
typedef struct {
    const char *name; FlagType type;
    // offset in the caller's struct of const char *, long, double, bool, size_t (a row's index)
    size_t field;
    const char *commands;    // separated by spaces, or "all"; of a group NULL
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
// The start-up table: what differs from the defaults, or all.
void flags_table(FILE *f, const void *args, const Flag *table, size_t n, const char *command, bool all);
json_t *flags_json(const void *args, const Flag *table, size_t n, const char *command); // a new object
const char *require(const char *value, const char *flag); // the value of a flag that must be given; dies by usage()
// One command's branch of the shell's completion, whose function stands in vbon.c: its flags, and the words that may
// follow each (FILES: files). presets: their names, separated by spaces.
void flags_completion(const Flag *table, size_t n, const char *command, const char *presets);
bool flags_belong(const Flag *table, size_t n, const char *command, const char *flags); // all of a preset's
// The name that a mistyped word was meant to be: each known one is tried, best is NULL while none is near.
typedef struct { const char *word, *best; size_t distance; } Nearest;
Nearest nearest(const char *word);
void nearest_try(Nearest *x, const char *name);

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
    return f->type != FLAG_GROUP && (!strcmp(f->commands, "all") || word_in(f->commands, command));
}

// Levenshtein's, but two neighbours exchanged are one edit (optimal string alignment).
static size_t edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 64 };
    size_t n = strlen(a), m = strlen(b), d[LONGEST + 1][LONGEST + 1];
    if (n > LONGEST || m > LONGEST) return SIZE_MAX;
    for (size_t i = 0; i <= n; i++) {
        for (size_t j = 0; j <= m; j++) {
            size_t best = i && j ? d[i - 1][j - 1] + (a[i - 1] != b[j - 1]) : i + j;
            if (i && d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (j && d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            bool exchanged = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (exchanged && d[i - 2][j - 2] + 1 < best) best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[n][m];
}

Nearest nearest(const char *word) { return (Nearest){word, NULL, 2 + strlen(word) / 4}; } // further off: another word
void nearest_try(Nearest *x, const char *name)
{
    size_t d = edit_distance(x->word, name);
    if (d < x->distance) { x->distance = d; x->best = name; }
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
    case FLAG_GROUP: return;
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
    Nearest x = nearest(name);
    nearest_try(&x, "help");
    for (size_t k = 0; k < n; k++) if (belongs(&table[k], command)) nearest_try(&x, table[k].name);
    if (x.best) usage("unknown flag --%s: did you mean --%s? see vbon %s --help", name, x.best, command);
    usage("unknown flag --%s: see vbon %s --help", name, command);
}

// The row of a name: this command's where it has one, else another's; NULL: nobody's. no: it is that of --no-NAME.
static const Flag *find_flag(const Flag *table, size_t n, const char *command, const char *name, bool *no)
{
    const Flag *f = NULL;
    for (size_t k = 0; k < n; k++) {
        const Flag *t = &table[k];
        bool negated = t->type == FLAG_BOOL && !strncmp(name, "no-", 3) && !strcmp(name + 3, t->name);
        if (t->type == FLAG_GROUP || (strcmp(name, t->name) && !negated) || (f && !belongs(t, command))) continue;
        f = t;
        *no = negated;
    }
    return f;
}

NORETURN static void other_commands_flag(const Flag *table, size_t n, const char *command, const char *name)
{
    char *owners = xstrdup("");
    for (size_t k = 0; k < n; k++)
        if (table[k].type != FLAG_GROUP && !strcmp(name, table[k].name))
            owners = format("%s%s%s", owners, *owners ? " " : "", table[k].commands);
    usage("--%s belongs to: %s; not to %s", name, owners, command);
}

static void read_flags(void *args, const Flag *table, size_t n, const char *command, size_t argc, char **argv,
                       int where)
{
    for (size_t i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (strncmp(word, "--", 2)) usage("unexpected \"%s\": flags begin with --; see vbon %s --help", word, command);
        char *name = xstrdup(word + 2), *value = strchr(name, '=');
        if (value) *value++ = 0;
        bool no = false;
        const Flag *f = find_flag(table, n, command, name, &no);
        if (!f) unknown_flag(table, n, command, name);
        if (!belongs(f, command)) other_commands_flag(table, n, command, f->name);
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
    for (int own = 0; own < 2; own++) { // of a flag's rows the first is set last, and after it the one of this command
        for (size_t i = n; i > 0; i--) {
            const Flag *f = &table[i - 1];
            if (f->fallback && (!own || belongs(f, command))) set_flag(args, f, f->fallback);
        }
    }
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

// The words of a text, each after a space; a line ends before column `width`, and the next begins at `indent`. *at: the
// column that is reached.
static void wrap(FILE *f, const char *text, size_t *at, size_t indent, size_t width)
{
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, " ");
        if (*at >= indent && *at + 1 + len >= width) *at = (size_t)fprintf(f, "\n%*s", (int)indent - 1, "") - 1;
        *at += (size_t)fprintf(f, " %.*s", (int)len, p);
        p += len + strspn(p + len, " ");
    }
}

// What is said of a flag: its help, [its default], (its range); then each of its choices.
static void flag_help(const Flag *f, size_t *at, size_t indent, size_t width)
{
    wrap(stdout, f->help, at, indent, width);
    bool has_default = f->fallback && *f->fallback && f->type != FLAG_BOOL;
    char *fallback = has_default ? format("[%s]", f->fallback) : NULL;
    char *range = f->choices && f->type != FLAG_CHOICE ? format("(%s)", f->choices) : NULL;
    if (fallback) wrap(stdout, fallback, at, indent, width);
    if (range) wrap(stdout, range, at, indent, width);
    free(fallback); free(range);
    putchar('\n');
    const char *choice;
    for (size_t k = 0; f->rows && (choice = row_name(f->rows, f->row_size, k)); k++) {
        const char *means = ((const char *const *)(const void *)((const char *)f->rows + k * f->row_size))[1];
        if (!means) continue;
        *at = (size_t)printf("%*s%s:", (int)indent + 2, "", choice);
        wrap(stdout, means, at, indent + 4, width);
        putchar('\n');
    }
}

// A command that can be copied: longer than a line, it is broken before flags.
static void example_help(const char *command, size_t width)
{
    size_t at = 1, len;
    for (const char *p = command; *p; p += len) {
        const char *next = strstr(p + 1, " --");
        len = next ? (size_t)(next - p) : strlen(p);
        if (at > 5 && at + len + 3 > width) at = (size_t)printf(" \\\n     ") - 3;
        at += (size_t)printf("%s%.*s", p == command ? "  " : "", (int)len, p);
    }
    putchar('\n');
}

void flags_help(const Flag *table, size_t n, const char *command, const char *summary, const char *example)
{
    static const char *const kinds[] = {"TEXT", "INT", "NUMBER", "", "", ""};
    size_t width = terminal_width(1), at = (size_t)printf("vbon %s:", command), indent = width < 72 ? 8 : 30;
    const char *group = NULL;
    wrap(stdout, summary, &at, 2, width);
    putchar('\n');
    for (size_t i = 0; i < n; i++) {
        const Flag *f = &table[i];
        if (f->type == FLAG_GROUP) group = f->name;
        if (!belongs(f, command)) continue;
        if (group) printf("\n%s\n", group);
        group = NULL;
        const char *kind = f->type == FLAG_CHOICE ? choices(f) : kinds[f->type];
        at = (size_t)printf("  --%s%s%s", f->name, *kind ? " " : "", kind);
        if (at + 1 >= indent) at = (size_t)printf("\n") - 1;
        at += (size_t)printf("%*s", (int)(indent - 1 - at), "");
        flag_help(f, &at, indent, width);
    }
    printf("\nexample\n");
    example_help(example, width);
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
    case FLAG_STRING: s = *(const char *const *)field; snprintf(out, size, "%s", s && *s ? s : "-"); break;
    case FLAG_GROUP: *out = 0;
    }
}

// Whether a flag has its default; of one without, whether it was left out.
static bool is_default(const void *args, const Flag *f)
{
    union { const char *s; long l; double d; bool b; size_t row; } value;
    char is[512], was[512];
    Flag own = *f;
    own.field = 0;
    if (!f->fallback) return !flag_given(f->name);
    set_flag(&value, &own, f->fallback);
    value_text(is, sizeof is, args, f);
    value_text(was, sizeof was, &value, &own);
    return !strcmp(is, was);
}

void flags_table(FILE *f, const void *args, const Flag *table, size_t n, const char *command, bool all)
{
    size_t widest = 0, left = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass) fprintf(f, "vbon %s\n", command);
        for (size_t i = 0; i < n; i++) {
            bool own = belongs(&table[i], command), normal = own && is_default(args, &table[i]);
            if (!pass && normal) left++;
            if (!own || (normal && !all)) continue;
            char v[512] = "-";
            if (table[i].fallback || !normal) value_text(v, sizeof v, args, &table[i]);
            if (pass) fprintf(f, "  %-*s  %s\n", (int)widest, table[i].name, v);
            else if (strlen(table[i].name) > widest) widest = strlen(table[i].name);
        }
    }
    if (left && !all) fprintf(f, "  and %zu defaults, which --verbose shows\n", left);
    fflush(f);
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
        case FLAG_STRING: {
            const char *text = *(const char *const *)field;
            if (text) v = json_string(text);
            break;
        }
        case FLAG_GROUP: break;
        }
        json_object_set_new(j, f->name, v ? v : json_null());
    }
    return j;
}

bool flags_belong(const Flag *table, size_t n, const char *command, const char *flags)
{
    bool all = true, no;
    for (const char *p = flags; (p = strstr(p, "--")); p += 2) {
        char *name = format("%.*s", (int)strcspn(p + 2, " "), p + 2);
        const Flag *f = find_flag(table, n, command, name, &no);
        all &= f && belongs(f, command);
        free(name);
    }
    return all;
}

void flags_completion(const Flag *table, size_t n, const char *command, const char *presets)
{
    printf("    *:%s)\n        flags='--help", command);
    for (size_t i = 0; i < n; i++) if (belongs(&table[i], command)) printf(" --%s", table[i].name);
    printf("'\n        case $flag in\n");
    for (size_t i = 0; i < n; i++) {
        const Flag *f = &table[i];
        if (!belongs(f, command) || f->type == FLAG_BOOL) continue;
        const char *words = f->type == FLAG_CHOICE ? choices(f) : !strcmp(f->name, "preset") ? presets : "";
        if (f->type == FLAG_STRING && !*words) words = "FILES";
        printf("        --%s) words='", f->name);
        for (const char *p = words; *p; p++) putchar(*p == '|' ? ' ' : *p);
        printf("%.*s' ;;\n", (int)word_length(f), f->choices ? f->choices : "");
    }
    printf("        *) words=$flags ;;\n        esac ;;\n");
}
#endif
