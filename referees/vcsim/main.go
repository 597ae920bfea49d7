// The referee for the vCenter client: govmomi's simulated vCenter, which nobody here wrote.
//
// It prints its address and the thumbprint of its certificate, and ends with its standard input. Nothing of the product is used here, and nothing of
// this is part of the product.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"os"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/simulator"
)

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// template makes a snapshot of a machine and then a template of it.
func template(ctx context.Context, at *url.URL, path string) error {
	client, err := govmomi.NewClient(ctx, at, true)
	if err != nil {
		return err
	}
	defer client.Logout(ctx)
	machine, err := find.NewFinder(client.Client).VirtualMachine(ctx, path)
	if err != nil {
		return err
	}
	task, err := machine.CreateSnapshot(ctx, "base", "", false, false)
	if err != nil {
		return err
	}
	if err := task.Wait(ctx); err != nil {
		return err
	}
	return machine.MarkAsTemplate(ctx)
}

func main() {
	model := simulator.VPX()
	model.Autostart = false
	fail(model.Create())
	model.Service.TLS = new(tls.Config)
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword("referee", "right-horse")}
	server := model.Service.NewServer()
	fail(template(context.Background(), server.URL, "/DC0/vm/DC0_C0_RP0_VM0"))
	fmt.Printf("%s %s\n", server.URL.Host, server.CertificateInfo().ThumbprintSHA1)
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
	}
	// Not server.Close: it would wait for the long polls of clients that have gone.
	model.Remove()
}
