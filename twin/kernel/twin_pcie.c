// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright: (c) 2026, The edgenpu.tuning authors
 *
 * A PCIe host controller whose configuration space lies in memory.
 *
 * Every function of the controller's hierarchy owns 16 KiB of the "config" region:
 *
 *	page 0	the configuration space as software reads it
 *	page 1	which bits a write changes
 *	page 2	which bits a written one clears (status registers)
 *	page 3	first word: TWIN_PRESENT | bus number << 8 | devfn
 *
 * The masks make the memory behave as registers do: BARs can be sized, capabilities are read only, status bits clear.
 * Whoever owns the memory from outside (the emulator's host) can change a link or make a card vanish at run time.
 */
#include <linux/io.h>
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/platform_device.h>

#define TWIN_PAGE	0x1000
#define TWIN_FUNCTION	(4 * TWIN_PAGE)
#define TWIN_PRESENT	0x80000000u

struct twin_pcie {
	void __iomem *config;
	unsigned int functions;
};

static void __iomem *twin_pcie_function(struct pci_bus *bus, unsigned int devfn)
{
	struct twin_pcie *pcie = bus->sysdata;
	u32 wanted = TWIN_PRESENT | bus->number << 8 | devfn;
	unsigned int i;

	for (i = 0; i < pcie->functions; i++) {
		void __iomem *function = pcie->config + i * TWIN_FUNCTION;

		if (readl(function + 3 * TWIN_PAGE) == wanted)
			return function;
	}
	return NULL;
}

static int twin_pcie_read(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value)
{
	void __iomem *function = twin_pcie_function(bus, devfn);

	if (!function)
		return PCIBIOS_DEVICE_NOT_FOUND;
	*value = readl(function + (where & ~3)) >> 8 * (where & 3);
	if (size < 4)
		*value &= (1u << 8 * size) - 1;
	return PCIBIOS_SUCCESSFUL;
}

static int twin_pcie_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	void __iomem *function = twin_pcie_function(bus, devfn);
	unsigned int shift = 8 * (where & 3);
	u32 lanes = size < 4 ? ((1u << 8 * size) - 1) << shift : ~0u;
	u32 word, writable, clearing;

	if (!function)
		return PCIBIOS_DEVICE_NOT_FOUND;
	function += where & ~3;
	value <<= shift;
	word = readl(function);
	writable = readl(function + TWIN_PAGE) & lanes;
	clearing = readl(function + 2 * TWIN_PAGE) & lanes;
	word = ((word & ~writable) | (value & writable)) & ~(value & clearing);
	writel(word, function);
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops twin_pcie_ops = {
	.read = twin_pcie_read,
	.write = twin_pcie_write,
};

static int twin_pcie_probe(struct platform_device *pdev)
{
	struct device *dev = &pdev->dev;
	struct pci_host_bridge *bridge;
	struct twin_pcie *pcie;
	struct resource *res;

	bridge = devm_pci_alloc_host_bridge(dev, sizeof(*pcie));
	if (!bridge)
		return -ENOMEM;
	pcie = pci_host_bridge_priv(bridge);
	res = platform_get_resource_byname(pdev, IORESOURCE_MEM, "config");
	pcie->config = devm_ioremap_resource(dev, res);
	if (IS_ERR(pcie->config))
		return PTR_ERR(pcie->config);
	pcie->functions = resource_size(res) / TWIN_FUNCTION;
	bridge->sysdata = pcie;
	bridge->ops = &twin_pcie_ops;
	bridge->msi_domain = true;
	return pci_host_probe(bridge);
}

static const struct of_device_id twin_pcie_of_match[] = {
	{ .compatible = "edgenpu,twin-pcie" },
	{ }
};
MODULE_DEVICE_TABLE(of, twin_pcie_of_match);

static struct platform_driver twin_pcie_driver = {
	.probe = twin_pcie_probe,
	.driver = {
		.name = "rk-pcie",
		.of_match_table = twin_pcie_of_match,
		.suppress_bind_attrs = true,
	},
};
builtin_platform_driver(twin_pcie_driver);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("PCIe host controller with its configuration space in memory");
