/* A libFuzzer target for fl_json. Linked without libFuzzer (-DFL_REPLAY) it runs the files named on its command line.
 *
 * fl_json.c is linked three times, once for each way it skips plain bytes: all three must say the same. And where a
 * scan fails at an offset, what is before it must have been in order.
 */
#include "fl_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int fl_json_scan_portable(const uint8_t *bytes, size_t length, uint32_t depth_max, fl_json_error *error);
int fl_json_scan_scalar(const uint8_t *bytes, size_t length, uint32_t depth_max, fl_json_error *error);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { DEPTH_MAX = 20 };

static void require(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "fl_json: %s\n", what);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fl_json_error error, other;
    uint8_t *copy = malloc(size); /* so that AddressSanitizer sees its ends */
    require(copy != NULL || size == 0, "no memory");
    if (size != 0) {
        memcpy(copy, data, size);
    }
    memset(&error, 0, sizeof error);
    memset(&other, 0, sizeof other);
    int result = fl_json_scan(copy, size, DEPTH_MAX, &error);
    require(fl_json_scan_portable(copy, size, DEPTH_MAX, &other) == result, "portable differs in result");
    require(memcmp(&error, &other, sizeof error) == 0, "portable differs in error");
    require(fl_json_scan_scalar(copy, size, DEPTH_MAX, &other) == result, "scalar differs in result");
    require(memcmp(&error, &other, sizeof error) == 0, "scalar differs in error");
    if (result != 0) {
        require(error.kind > FL_JSON_OK && error.kind <= FL_JSON_TOO_DEEP, "kind");
        require(error.state <= FL_JSON_AFTER_VALUE, "state");
        require(error.offset <= size, "offset");
        require((error.kind == FL_JSON_END_OF_INPUT) == (error.offset == size), "end of input");
        require(error.line >= 1 && error.column >= 1 && error.column <= error.offset + 1, "place");
        require(error.opener == 0 || copy[error.opener_offset] == error.opener, "opener");
        uint64_t failed_at = error.offset;
        if (error.kind != FL_JSON_END_OF_INPUT && fl_json_scan(copy, failed_at, DEPTH_MAX, &error) != 0) {
            require(error.kind == FL_JSON_END_OF_INPUT, "the part before the error is not in order");
        }
    }
    free(copy);
    return 0;
}

#ifdef FL_REPLAY
int main(int count, char **names)
{
    static uint8_t data[1 << 20];
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        require(file != NULL, names[i]);
        size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        for (size_t length = 0; length <= size; length++) { /* and everything it begins with */
            LLVMFuzzerTestOneInput(data, length);
        }
    }
    printf("%d inputs\n", count - 1);
    return 0;
}
#endif
