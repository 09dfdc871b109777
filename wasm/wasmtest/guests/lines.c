/* lines: an ordinary command that upper-cases its standard input, drops lines
 * that begin with #, and doubles those that begin with +. "boom" ends it badly. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
  static char line[65536];
  while (fgets(line, sizeof line, stdin)) {
    if (line[0] == '#') continue;
    if (strcmp(line, "boom\n") == 0) abort();
    for (char *p = line; *p; p++) *p = (char)toupper(*p);
    fputs(line, stdout);
    if (line[0] == '+') fputs(line, stdout);
  }
  return 0;
}
