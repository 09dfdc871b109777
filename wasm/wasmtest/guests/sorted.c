/* sorted: a command that answers only when it has read everything: what
 * wasi-lines can run record by record only. It prints the number of its lines
 * before each. */
#include <stdio.h>
#include <string.h>

int main(void) {
  static char lines[1000][256];
  int n = 0;
  while (n < 1000 && fgets(lines[n], sizeof lines[n], stdin)) n++;
  for (int i = n - 1; i >= 0; i--) printf("%d:%s", n, lines[i]);
  return 0;
}
