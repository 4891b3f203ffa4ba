# SPDX-License-Identifier: GPL-2.0-or-later
# Writes as JSON what Vagrant itself reads in a Vagrantfile: config.rb DIRECTORY PROVIDER
require "json"
require "vagrant"

directory, provider = ARGV
environment = Vagrant::Environment.new(cwd: directory, ui_class: Vagrant::UI::Silent)
machines = environment.machine_names.to_h do |name|
  config = environment.vagrantfile.machine_config(name, provider.to_sym, nil, nil, false)[:config]
  own = config.vm.get_provider_config(provider.to_sym)
  [name, {
    box: config.vm.box,
    hostname: config.vm.hostname,
    networks: config.vm.networks.map { |type, options| { type: type }.merge(options) },
    folders: config.vm.synced_folders,
    scripts: config.vm.provisioners.map { |provisioner| provisioner.config.inline },
    memory: own.memory,
    cpus: own.cpus,
    customizations: own.respond_to?(:customizations) ? own.customizations.map(&:last) : [],
  }]
end
puts JSON.generate(machines)
