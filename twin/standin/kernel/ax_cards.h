/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright: (c) 2026, The edgenpu.tuning authors
 *
 * What the stand-in's modules share.
 */
#ifndef AX_CARDS_H
#define AX_CARDS_H

#include <linux/module.h>
#include <linux/pci.h>

#include "ax_version.h"
#if __has_include("ax_built.h")
#include "ax_built.h"
#else
#define AX_BUILT "nowhere"
#endif

/* The vendor's modules have no MODULE_VERSION; this string in the file is all that tells which version it is. */
#define AX_TELL_VERSION \
	static const char ax_version[] __used = "[AXCL version]: " KBUILD_MODNAME " " AX_VERSION " " AX_BUILT

/* Calls fn for every card that is bound to ax_pcie_dev_host; ends at the first that returns something else than 0. */
int ax_for_each_card(int (*fn)(struct pci_dev *pdev, void *data), void *data);
/* A mark on the card's PCI device: it outlives every module and goes when the device is removed from its bus. */
void ax_mark_dead(struct pci_dev *pdev);
bool ax_is_marked_dead(struct pci_dev *pdev);

int ax_msg_users(void);

#endif
