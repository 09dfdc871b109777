/* pass: leaves every record as it is, through a result table. */
#include "guest.h"

EXPORT(weir_process) i64 weir_process(u32 ptr, u32 len) {
  in_t *in = begin();
  for (u32 i = 0; i < in->count; i++) table[i] = (ent_t){0, 0, 0, 0};
  return (u32)&result;
}
