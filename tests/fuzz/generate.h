/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Frames from a seed. */
#ifndef GENERATE_H
#define GENERATE_H

#include "reference.h"

#define FRAME_MAX 3400 /* BPF_PROG_TEST_RUN takes a page, less what the kernel wants around a frame */
#define FRAME_MIN 14
#define FRAME_SPACE 8192 /* what is made before it is cut to that */

struct generator {
	uint64_t state;
};

/* Writes the next frame, where there is FRAME_SPACE, and says how long it is and which port it comes in by. The same for the same state and scene. */
int generate(struct generator *generator, const struct scene *scene, uint8_t *frame, int32_t *port);

#endif
