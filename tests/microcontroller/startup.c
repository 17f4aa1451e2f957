/* From reset to main on an emulated Cortex-M. The C library is newlib, its files are those of the emulator (semihosting). */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern uint32_t data_source[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];
extern void initialise_monitor_handles(void);
extern int main(void);

static void reset(void)
{
    memcpy(data_start, data_source, (size_t)((char *)data_end - (char *)data_start));
    memset(bss_start, 0, (size_t)((char *)bss_end - (char *)bss_start));
#ifdef __ARM_FP
    *(volatile uint32_t *)0xE000ED88 |= 0xF << 20; /* the floating-point unit is on */
    __asm__ volatile("dsb\nisb");
#endif
    initialise_monitor_handles();
    exit(main());
}

static void fault(void)
{
    abort();
}

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {stack_top, reset, fault, fault, fault, fault, fault};
