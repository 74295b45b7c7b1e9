// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: (c) 2026, The edgenpu.tuning authors
 *
 * Stand-in for the host driver of Axera's PCIe cards. It behaves as the vendor's does where the kernel can see it:
 * module ax_pcie_host_dev, driver ax_pcie_dev_host, cards known by vendor, device and subsystem, one threaded MSI named
 * after the card's address, and a load that takes its time after the cards are bound. It moves no data.
 */
#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/iopoll.h>
#include <linux/irq.h>
#include <linux/module.h>
#include <linux/pci.h>

#define AX_VENDOR	0x1f4b
#define AX_DEVICE	0x0650
#define AX_MAX_VECTORS	32

/* The card's event counter capability: whoever raises interrupts from outside reads there how many arrived. */
#define AX_EVENT_CAP	0x0002
#define AX_EVENT_DATA	0x0c

static unsigned int vectors = 1;
module_param(vectors, uint, 0444);
MODULE_PARM_DESC(vectors, "MSI vectors to ask for; fewer are taken if the card offers fewer (default 1)");

static char *names = "bdf";
module_param(names, charp, 0444);
MODULE_PARM_DESC(names, "names of the interrupts: bdf, or text with one %d for the vector (default bdf)");

static unsigned int load_delay_ms;
module_param(load_delay_ms, uint, 0444);
MODULE_PARM_DESC(load_delay_ms, "how long loading blocks after the cards are bound, as a firmware push does (default 0)");

struct ax_card;

struct ax_vector {
	struct ax_card *card;
	atomic_long_t handled;
};

struct ax_card {
	struct pci_dev *pdev;
	unsigned int vectors;
	u16 event_cap;
	atomic_t events;
	struct ax_vector vector[AX_MAX_VECTORS];
};

static irqreturn_t ax_irq(int irq, void *data)
{
	struct ax_card *card = ((struct ax_vector *)data)->card;

	int events = atomic_inc_return(&card->events);

	if (card->event_cap)
		pci_write_config_dword(card->pdev, card->event_cap + AX_EVENT_DATA, events);
	return IRQ_WAKE_THREAD;
}

static irqreturn_t ax_irq_thread(int irq, void *data)
{
	struct ax_vector *vector = data;

	atomic_long_inc(&vector->handled);
	return IRQ_HANDLED;
}

/* "VECTOR [COUNT]": interrupts from inside the machine, for cards that nobody can reach from outside. */
static ssize_t fire_store(struct device *dev, struct device_attribute *attr, const char *text, size_t length)
{
	struct ax_card *card = dev_get_drvdata(dev);
	unsigned int vector, count = 1;
	int ret;

	if (sscanf(text, "%u %u", &vector, &count) < 1 || vector >= card->vectors)
		return -EINVAL;
	while (count--) {
		int before = atomic_read(&card->events), now;

		ret = irq_inject_interrupt(pci_irq_vector(card->pdev, vector));
		/* The next one must not find this one still pending: two would be counted as one. */
		if (!ret)
			ret = read_poll_timeout(atomic_read, now, now != before, 100, 2000000, false, &card->events);
		if (ret)
			return ret;
	}
	return length;
}
static DEVICE_ATTR_WO(fire);

/* One line per vector: how often its thread ran. */
static ssize_t handled_show(struct device *dev, struct device_attribute *attr, char *text)
{
	struct ax_card *card = dev_get_drvdata(dev);
	unsigned int i;
	int length = 0;

	for (i = 0; i < card->vectors; i++)
		length += sysfs_emit_at(text, length, "%ld\n", atomic_long_read(&card->vector[i].handled));
	return length;
}
static DEVICE_ATTR_RO(handled);

static struct attribute *ax_attrs[] = {
	&dev_attr_fire.attr,
	&dev_attr_handled.attr,
	NULL
};
ATTRIBUTE_GROUPS(ax);

static const char *ax_irq_name(struct pci_dev *pdev, unsigned int vector)
{
	const char *mark = strstr(names, "%d");

	if (!strcmp(names, "bdf"))
		return pci_name(pdev);
	if (!mark)
		return names;
	return devm_kasprintf(&pdev->dev, GFP_KERNEL, "%.*s%u%s", (int)(mark - names), names, vector, mark + 2);
}

static int ax_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct ax_card *card;
	unsigned int i;
	int ret;

	card = devm_kzalloc(&pdev->dev, sizeof(*card), GFP_KERNEL);
	if (!card)
		return -ENOMEM;
	card->pdev = pdev;
	pci_set_drvdata(pdev, card);
	ret = pcim_enable_device(pdev);
	if (ret)
		return dev_err_probe(&pdev->dev, ret, "cannot enable the card\n");
	pci_set_master(pdev);
	card->event_cap = pci_find_vsec_capability(pdev, AX_VENDOR, AX_EVENT_CAP);
	if (card->event_cap)
		pci_write_config_dword(pdev, card->event_cap + AX_EVENT_DATA, 0);
	ret = pci_alloc_irq_vectors(pdev, 1, clamp(vectors, 1u, (unsigned int)AX_MAX_VECTORS), PCI_IRQ_MSI);
	if (ret < 0)
		return dev_err_probe(&pdev->dev, ret, "no MSI vector\n");
	card->vectors = ret;
	for (i = 0; i < card->vectors; i++) {
		const char *name = ax_irq_name(pdev, i);

		card->vector[i].card = card;
		ret = name ? devm_request_threaded_irq(&pdev->dev, pci_irq_vector(pdev, i), ax_irq, ax_irq_thread,
						       IRQF_SHARED, name, &card->vector[i]) : -ENOMEM;
		if (ret)
			return dev_err_probe(&pdev->dev, ret, "cannot take MSI vector %u\n", i);
	}
	pci_info(pdev, "stand-in for the Axera host driver: %u MSI vector(s)\n", card->vectors);
	return 0;
}

static const struct pci_device_id ax_ids[] = {
	{ PCI_DEVICE_SUB(AX_VENDOR, AX_DEVICE, AX_VENDOR, AX_DEVICE) },
	{ }
};
MODULE_DEVICE_TABLE(pci, ax_ids);

static struct pci_driver ax_driver = {
	.name = "ax_pcie_dev_host",
	.id_table = ax_ids,
	.probe = ax_probe,
	.dev_groups = ax_groups,
};

static int __init ax_init(void)
{
	int ret = pci_register_driver(&ax_driver);

	if (!ret && load_delay_ms)
		msleep(load_delay_ms);
	return ret;
}
module_init(ax_init);

static void __exit ax_exit(void)
{
	pci_unregister_driver(&ax_driver);
}
module_exit(ax_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Stand-in for the host driver of Axera PCIe cards");
