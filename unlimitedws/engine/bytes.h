/* The loops over payload bytes, written with the compiler's vector types so that every target gets
 * its own instructions (SSE2 on x86_64, NEON on aarch64) without run-time dispatch: AVX2 saves 30 to
 * 80 of 565 ns for 16 KiB, under 1% of its echo.
 *
 * A masking key is held in memory order: its first byte applies to the first payload byte
 * (RFC 6455, section 5.3). */
#ifndef UNLIMITEDWS_BYTES_H
#define UNLIMITEDWS_BYTES_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the native engine rotates masking keys as little-endian words; use the portable engine here"
#endif

typedef uint64_t uws_vec __attribute__((vector_size(16)));

/* The key as it applies `done` bytes into the payload. */
static inline uint32_t uws_rotate(uint32_t mask, size_t done)
{
    unsigned shift = (unsigned)(done & 3) * 8;
    return shift ? mask >> shift | mask << (32 - shift) : mask;
}

/* dst[i] = src[i] ^ key[i % 4]; dst may be src, or not overlap it. Returns the OR of all bytes
 * written: below 0x80 when they are ASCII, so that text is copied and classified in one pass. */
static inline uint8_t uws_unmask(uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask)
{
    uint64_t wide = (uint64_t)mask << 32 | mask, any = 0;
    if (n >= 64) {
        uws_vec m = {wide, wide}, acc = {0, 0};
        for (; n >= 64; n -= 64, src += 64, dst += 64) {
            uws_vec a, b, c, d;
            memcpy(&a, src, 16);
            memcpy(&b, src + 16, 16);
            memcpy(&c, src + 32, 16);
            memcpy(&d, src + 48, 16);
            a ^= m;
            b ^= m;
            c ^= m;
            d ^= m;
            acc |= a | b | c | d;
            memcpy(dst, &a, 16);
            memcpy(dst + 16, &b, 16);
            memcpy(dst + 32, &c, 16);
            memcpy(dst + 48, &d, 16);
        }
        any = acc[0] | acc[1];
    }
    if (n >= 16) {
        uws_vec m = {wide, wide}, acc = {0, 0}, a;
        for (; n >= 16; n -= 16, src += 16, dst += 16) {
            memcpy(&a, src, 16);
            a ^= m;
            acc |= a;
            memcpy(dst, &a, 16);
        }
        any |= acc[0] | acc[1];
    }
    if (n >= 8) {
        uint64_t a;
        memcpy(&a, src, 8);
        a ^= wide;
        any |= a;
        memcpy(dst, &a, 8);
        n -= 8, src += 8, dst += 8;
    }
    any |= any >> 32;
    any |= any >> 16;
    any |= any >> 8;
    for (size_t i = 0; i < n; i++) {
        dst[i] = src[i] ^ (uint8_t)(wide >> (8 * i));
        any |= dst[i];
    }
    return (uint8_t)any;
}

/* Incremental UTF-8 (RFC 3629, section 4), so that bad text fails with its first bad byte.
 * need: continuation bytes still to come; low, high: what the next one may be. */
typedef struct {
    uint8_t need, low, high;
} uws_utf8;

/* 1: valid so far; 0: invalid, whatever follows. The text is complete when state->need is 0. */
static inline int uws_utf8_feed(uws_utf8 *state, const uint8_t *p, size_t n)
{
    const uint8_t *end = p + n;
    uint8_t need = state->need, low = state->low, high = state->high;
    while (p < end) {
        if (!need) {
            uint64_t word;
            while (end - p >= 8 && (memcpy(&word, p, 8), !(word & 0x8080808080808080ull))) p += 8;
            if (p == end) break;
        }
        uint8_t b = *p++;
        if (need) {
            if (b < low || b > high) return 0;
            need--;
            low = 0x80;
            high = 0xBF;
        } else if (b >= 0x80) {
            if (b < 0xC2 || b > 0xF4) return 0;
            need = b < 0xE0 ? 1 : b < 0xF0 ? 2 : 3;
            low = b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80;  /* no longer form than needed */
            high = b == 0xED ? 0x9F : b == 0xF4 ? 0x8F : 0xBF; /* no surrogates, nothing past U+10FFFF */
        }
    }
    state->need = need;
    state->low = low;
    state->high = high;
    return 1;
}
#endif
