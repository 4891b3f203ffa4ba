/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs frames through the loaded program (BPF_PROG_TEST_RUN) and through the reference, and compares: what becomes of the
 * frame, each of its bytes, and all counters. What went up to Python is compared when it has come out of the ring.
 */
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "generate.h"
#include "reference.h"

#define RECORD_SIZE 64
#define RECORD_HEADER 12
#define ENTRY_COLUMNS (OUTCOMES + REASONS + LIMITS)
#define TAG_AT 12
#define TAG_SIZE 4
#define SMALLEST 60   /* bytes of a frame that the kernel takes for tc, whatever its type is, and some more */
#define EVENT_TIME 32 /* where in an event the time stands, 4 bytes: no two are the same */

/* The loaded program. Counters are per CPU, 8 bytes each. */
struct program {
	int32_t fd;        /* of the function by which frames go in */
	int32_t pusher_fd; /* NONE: that is XDP's; else it is tc's, and this runs it with what the kernel can't be told */
	int32_t entry_counters_fd, rule_counters_fd, heard_fd;
	int32_t cpus, entries, rules;
	uint64_t *entry_base, *rule_base;     /* what they said at the start */
	uint64_t *entry_wanted, *rule_wanted; /* and what has come to that by the reference */
	uint64_t *values;                     /* for all of one map's counters, of all CPUs */
};

/* What became of frames. */
struct report {
	int64_t frames; /* how many were compared, the one that differs with them */
	int32_t events; /* how many of them went up */
	int32_t port, length, action, out_length;
	struct verdict verdict; /* the reference's, of the last frame */
	uint8_t frame[FRAME_SPACE], out[FRAME_SPACE];
	char difference[512]; /* "": none */
	uint64_t outcomes[OUTCOMES], reasons[REASONS], limits[LIMITS], answered, handed_up;
};

/* What Python is to be handed, and what it is to answer. */
struct told {
	int64_t frame; /* the number of the frame */
	int32_t answer_length;
	uint8_t event[EVENT_SIZE], answer[ANSWER_MAX];
};

static const char *const actions[] = { "XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT" };
/* The metric labels, in the order of the counters. */
static const char *const outcomes[] = { OUTCOME_NAMES };
static const char *const reasons[] = { REASON_NAMES };
static const char *const limits[] = { LIMIT_NAMES };

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* BPF_PROG_TEST_RUN: what the program returns, and the frame as it leaves it. */
static int test_run(int fd, const uint8_t *frame, int length, void *context, int size, struct report *report)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = fd;
	attr.test.data_in = (uintptr_t)frame;
	attr.test.data_size_in = length;
	attr.test.data_out = (uintptr_t)report->out;
	attr.test.data_size_out = sizeof(report->out);
	attr.test.ctx_in = (uintptr_t)context;
	attr.test.ctx_size_in = size;
	if (bpf(BPF_PROG_TEST_RUN, &attr) != 0)
		return -1;
	report->action = attr.test.retval;
	report->out_length = attr.test.data_size_out;
	return 0;
}

/* Whether a frame's first tag is to stand beside it, under tc. Its bytes say it, so that it is the same each time. */
static int is_put_beside(const uint8_t *frame, int length)
{
	int type = length < TAG_AT + 2 + TAG_SIZE ? 0 : frame[12] * 256 + frame[13];
	unsigned int sum = 0;

	if (type != 0x8100 && type != 0x88a8)
		return 0;
	for (int i = 0; i < length; i++)
		sum += frame[i];
	return sum % 4 != 0;
}

/* By the function for tc; what comes of it is said in XDP's words, and a tag beside the frame is put back into it. */
static int tc_run(const struct program *program, int port, const uint8_t *frame, int length, struct report *report)
{
	struct __sk_buff context = { .ifindex = port };
	int tag = is_put_beside(frame, length) ? TAG_SIZE : 0, size = length - tag;
	uint8_t within[FRAME_SPACE] = {};

	memcpy(within, frame, TAG_AT);
	memcpy(within + TAG_AT, frame + TAG_AT + tag, length - TAG_AT - tag);
	if (tag > 0)
		context.mark = (uint32_t)frame[12] << 24 | frame[13] << 16 | frame[14] << 8 | frame[15];
	if (size < SMALLEST) {
		context.cb[0] = size;
		size = SMALLEST;
	}
	if (test_run(tag || context.cb[0] ? program->pusher_fd : program->fd, within, size, &context, sizeof(context),
		     report) != 0)
		return -1;
	memmove(report->out + TAG_AT + tag, report->out + TAG_AT, report->out_length - TAG_AT);
	memcpy(report->out + TAG_AT, frame + TAG_AT, tag);
	report->out_length += tag;
	switch (report->action) {
	case -1: /* TCX_NEXT */
		report->action = PASS;
		return 0;
	case 2: /* TC_ACT_SHOT */
		report->action = DROP;
		return 0;
	case 7: /* TC_ACT_REDIRECT */
		report->action = TX;
		return 0;
	default:
		report->action = NONE;
		return 0;
	}
}

static int run(const struct program *program, int port, const uint8_t *frame, int length, struct report *report)
{
	struct xdp_md context = { .data_end = length, .ingress_ifindex = port };

	if (program->pusher_fd != NONE)
		return tc_run(program, port, frame, length, report);
	return test_run(program->fd, frame, length, &context, sizeof(context), report);
}

/* All counters of a map into `values`: those of number 0 first, for each of them one CPU after the other. */
static int read_map(const struct program *program, int fd, int numbers)
{
	uint32_t keys[numbers], place;
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.batch.out_batch = (uintptr_t)&place;
	attr.batch.keys = (uintptr_t)keys;
	attr.batch.values = (uintptr_t)program->values;
	attr.batch.count = numbers;
	attr.batch.map_fd = fd;
	if (bpf(BPF_MAP_LOOKUP_BATCH, &attr) != 0 && attr.batch.count != (uint32_t)numbers)
		return -1;
	return 0;
}

static uint64_t sum(const struct program *program, int number, int columns, int column)
{
	uint64_t total = 0;

	for (int cpu = 0; cpu < program->cpus; cpu++)
		total += program->values[(number * program->cpus + cpu) * columns + column];
	return total;
}

/* Whether all counters say what they should; the first that doesn't is written into the report. */
static int counters_agree(const struct program *program, struct report *report)
{
	const int columns[] = { ENTRY_COLUMNS, OUTCOMES };
	char *to = report->difference;
	size_t left = sizeof(report->difference);

	for (int map = 0; map < 2; map++) {
		int numbers = map == 0 ? program->entries : program->rules;
		int fd = map == 0 ? program->entry_counters_fd : program->rule_counters_fd;
		const uint64_t *base = map == 0 ? program->entry_base : program->rule_base;
		const uint64_t *wanted = map == 0 ? program->entry_wanted : program->rule_wanted;

		if (numbers == 0)
			continue;
		if (read_map(program, fd, numbers) != 0) {
			snprintf(report->difference, sizeof(report->difference), "the counters can't be read: %m");
			return 0;
		}
		for (int i = 0; i < numbers * columns[map]; i++) {
			int number = i / columns[map], column = i % columns[map], said;
			long long off = sum(program, number, columns[map], column) - base[i] - wanted[i];

			if (off == 0 || left < 120)
				continue;
			said = snprintf(to, left, "%sthe counter %s %s of %s %d is %+lld off",
					left < sizeof(report->difference) ? "; " : "",
					column < OUTCOMES             ? "outcome"
					: column < OUTCOMES + REASONS ? "reason"
								      : "limit",
					column < OUTCOMES             ? outcomes[column]
					: column < OUTCOMES + REASONS ? reasons[column - OUTCOMES]
								      : limits[column - OUTCOMES - REASONS],
					map == 0 ? "entry" : "rule", number, off);
			to += said;
			left -= said;
		}
	}
	return left == sizeof(report->difference);
}

/* Begin to count: what the counters say now is what they started with. */
int start(const struct program *program)
{
	const int columns[] = { ENTRY_COLUMNS, OUTCOMES };

	for (int map = 0; map < 2; map++) {
		int numbers = map == 0 ? program->entries : program->rules;
		int fd = map == 0 ? program->entry_counters_fd : program->rule_counters_fd;
		uint64_t *base = map == 0 ? program->entry_base : program->rule_base;
		uint64_t *wanted = map == 0 ? program->entry_wanted : program->rule_wanted;

		if (numbers == 0)
			continue;
		if (read_map(program, fd, numbers) != 0)
			return -1;
		for (int i = 0; i < numbers * columns[map]; i++) {
			base[i] = sum(program, i / columns[map], columns[map], i % columns[map]);
			wanted[i] = 0;
		}
	}
	return 0;
}

/* Reset what the program and the reference know of present targets and of heard addresses. */
static void forget(const struct program *program, struct scene *scene)
{
	struct {
		uint32_t scope, zero;
		address address;
	} key;
	union bpf_attr attr;

	for (;;) {
		memset(&attr, 0, sizeof(attr));
		attr.map_fd = program->heard_fd;
		attr.next_key = (uintptr_t)&key;
		if (bpf(BPF_MAP_GET_NEXT_KEY, &attr) != 0)
			break;
		memset(&attr, 0, sizeof(attr));
		attr.map_fd = program->heard_fd;
		attr.key = (uintptr_t)&key;
		bpf(BPF_MAP_DELETE_ELEM, &attr);
	}
	scene->heards = 0;
	for (int i = 0; i < scene->hosts; i++)
		scene->host[i].is_stale = scene->host[i].was_stale;
}

static void count(const struct program *program, const struct verdict *v, struct report *report)
{
	if (v->outcome != NONE) {
		report->outcomes[v->outcome]++;
		program->entry_wanted[v->entry * ENTRY_COLUMNS + v->outcome]++;
		if (v->rule != NONE)
			program->rule_wanted[v->rule * OUTCOMES + v->outcome]++;
	}
	if (v->reason != NONE) {
		report->reasons[v->reason]++;
		program->entry_wanted[v->entry * ENTRY_COLUMNS + OUTCOMES + v->reason]++;
	}
	if (v->limit != NONE) {
		report->limits[v->limit]++;
		program->entry_wanted[v->entry * ENTRY_COLUMNS + OUTCOMES + REASONS + v->limit]++;
	}
}

/* One frame by both. 0: they agree, as far as it shows at once. */
static int run_frame(const struct program *program, struct scene *scene, struct report *report)
{
	struct verdict *v = &report->verdict;
	const uint8_t *wanted = report->frame;
	int wanted_length = report->length;

	decide(scene, report->port, report->frame, report->length, v);
	count(program, v, report);
	report->answered += v->action == TX;
	report->handed_up += v->goes_up;
	report->frames++;
	if (run(program, report->port, report->frame, report->length, report) != 0) {
		snprintf(report->difference, sizeof(report->difference), "BPF_PROG_TEST_RUN refused the frame: %m");
		return -1;
	}
	if (report->action != v->action) {
		snprintf(report->difference, sizeof(report->difference), "the action is %s, not %s",
			 report->action >= 0 && report->action < 5 ? actions[report->action] : "none that there is",
			 actions[v->action]);
		return -1;
	}
	if (v->action == TX) {
		wanted = v->answer;
		wanted_length = v->answer_length;
	}
	if (report->out_length != wanted_length) {
		snprintf(report->difference, sizeof(report->difference), "%s has %d bytes, not %d",
			 v->action == TX ? "the answer" : "the frame", report->out_length, wanted_length);
		return -1;
	}
	for (int i = 0; i < wanted_length; i++) {
		if (report->out[i] != wanted[i]) {
			snprintf(report->difference, sizeof(report->difference), "byte %d of %s is 0x%02x, not 0x%02x",
				 i, v->action == TX ? "the answer" : "the frame", report->out[i], wanted[i]);
			return -1;
		}
	}
	return 0;
}

/*
 * The frames of a seed, or as many of them as agree. Counters are read after each `stride` of them: a difference that
 * shows there is one of the last `stride` frames. `told` has space for as many as there are frames.
 */
int run_chunk(const struct program *program, struct scene *scene, uint64_t seed, int frames, int stride,
	      struct report *report, struct told *told)
{
	struct generator generator = { .state = seed };

	forget(program, scene);
	report->difference[0] = 0;
	report->events = 0;
	for (int i = 0; i < frames; i++) {
		report->length = generate(&generator, scene, report->frame, &report->port);
		if (run_frame(program, scene, report) != 0)
			return -1;
		if (report->verdict.goes_up) {
			struct told *next = &told[report->events++];

			next->frame = i;
			next->answer_length = report->verdict.answer_length;
			memcpy(next->event, report->verdict.event, EVENT_SIZE);
			memcpy(next->answer, report->verdict.answer, ANSWER_MAX);
		}
		if (((i + 1) % stride == 0 || i + 1 == frames) && !counters_agree(program, report))
			return -1;
	}
	return 0;
}

/* The frame that stands in the report, by itself. */
int run_one(const struct program *program, struct scene *scene, struct report *report, struct told *told)
{
	forget(program, scene);
	report->difference[0] = 0;
	report->events = 0;
	if (run_frame(program, scene, report) != 0 || !counters_agree(program, report))
		return -1;
	if (report->verdict.goes_up) {
		report->events = 1;
		told->frame = 0;
		told->answer_length = report->verdict.answer_length;
		memcpy(told->event, report->verdict.event, EVENT_SIZE);
		memcpy(told->answer, report->verdict.answer, ANSWER_MAX);
	}
	return 0;
}

/* The frame of that number in a chunk. */
void frame_of(const struct scene *scene, uint64_t seed, int number, struct report *report)
{
	struct generator generator = { .state = seed };

	for (int i = 0; i <= number; i++)
		report->length = generate(&generator, scene, report->frame, &report->port);
}

/* The same, and what is to become of it. */
void verdict_of(struct scene *scene, uint64_t seed, int number, struct report *report)
{
	frame_of(scene, seed, number, report);
	decide(scene, report->port, report->frame, report->length, &report->verdict);
}

/* The first of the records from the ring that isn't what was to be told; `count` if all are. The times may be any. */
int events_agree(const uint8_t *records, const struct told *told, int count)
{
	for (int i = 0; i < count; i++) {
		const uint8_t *event = records + i * RECORD_SIZE + RECORD_HEADER;

		if (memcmp(event, told[i].event, EVENT_TIME) != 0 ||
		    memcmp(event + EVENT_TIME + 4, told[i].event + EVENT_TIME + 4, EVENT_SIZE - EVENT_TIME - 4) != 0)
			return i;
	}
	return count;
}

void checksum_into(uint8_t *ip, uint8_t *message, int length)
{
	uint16_t sum = checksum(ip + 8, ip + 24, message, length);

	message[2] = sum / 256;
	message[3] = sum % 256;
}

/* The sizes of what scene.py mirrors; 0 behind the last. */
int size_of(int which)
{
	const int sizes[] = { sizeof(struct scene), sizeof(struct report), sizeof(struct told), sizeof(struct program),
			      0 };

	return sizes[which];
}
