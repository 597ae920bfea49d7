//! The service itself: what it is, its managers, who is logged in; tasks.

use jiff::Timestamp;

use crate::fault::{LocalizableMessage, LocalizedMethodFault};
use crate::value::{AnyValue, ManagedObjectReference};

type Reference = Option<ManagedObjectReference>;

data! {
    /// References to the managers, and what the server is.
    ServiceContent = "ServiceContent" {
        root_folder: ManagedObjectReference = "rootFolder",
        property_collector: ManagedObjectReference = "propertyCollector",
        view_manager: Reference = "viewManager",
        about: AboutInfo = "about",
        setting: Reference = "setting",
        user_directory: Reference = "userDirectory",
        session_manager: Reference = "sessionManager",
        authorization_manager: Reference = "authorizationManager",
        service_manager: Reference = "serviceManager",
        performance_manager: Reference = "perfManager",
        scheduled_task_manager: Reference = "scheduledTaskManager",
        alarm_manager: Reference = "alarmManager",
        event_manager: Reference = "eventManager",
        task_manager: Reference = "taskManager",
        extension_manager: Reference = "extensionManager",
        customization_spec_manager: Reference = "customizationSpecManager",
        guest_customization_manager: Reference = "guestCustomizationManager",
        custom_fields_manager: Reference = "customFieldsManager",
        account_manager: Reference = "accountManager",
        diagnostic_manager: Reference = "diagnosticManager",
        license_manager: Reference = "licenseManager",
        search_index: Reference = "searchIndex",
        file_manager: Reference = "fileManager",
        datastore_namespace_manager: Reference = "datastoreNamespaceManager",
        virtual_disk_manager: Reference = "virtualDiskManager",
        virtualization_manager: Reference = "virtualizationManager",
        snmp_system: Reference = "snmpSystem",
        vm_provisioning_checker: Reference = "vmProvisioningChecker",
        vm_compatibility_checker: Reference = "vmCompatibilityChecker",
        ovf_manager: Reference = "ovfManager",
        ip_pool_manager: Reference = "ipPoolManager",
        distributed_switch_manager: Reference = "dvSwitchManager",
        host_profile_manager: Reference = "hostProfileManager",
        cluster_profile_manager: Reference = "clusterProfileManager",
        compliance_manager: Reference = "complianceManager",
        localization_manager: Reference = "localizationManager",
        storage_resource_manager: Reference = "storageResourceManager",
        guest_operations_manager: Reference = "guestOperationsManager",
        overhead_memory_manager: Reference = "overheadMemoryManager",
        certificate_manager: Reference = "certificateManager",
        io_filter_manager: Reference = "ioFilterManager",
        storage_object_manager: Reference = "vStorageObjectManager",
        host_spec_manager: Reference = "hostSpecManager",
        crypto_manager: Reference = "cryptoManager",
        health_update_manager: Reference = "healthUpdateManager",
        failover_cluster_configurator: Reference = "failoverClusterConfigurator",
        failover_cluster_manager: Reference = "failoverClusterManager",
        tenant_manager: Reference = "tenantManager",
        site_info_manager: Reference = "siteInfoManager",
        storage_query_manager: Reference = "storageQueryManager",
    }
    /// What the server is.
    AboutInfo = "AboutInfo" {
        name: String = "name",
        full_name: String = "fullName",
        vendor: String = "vendor",
        version: String = "version",
        patch_level: Option<String> = "patchLevel",
        build: String = "build",
        locale_version: Option<String> = "localeVersion",
        locale_build: Option<String> = "localeBuild",
        os_type: String = "osType",
        product_line_id: String = "productLineId",
        /// `VirtualCenter`, or `HostAgent` for a lone ESXi host.
        api_type: String = "apiType",
        api_version: String = "apiVersion",
        /// Identifies a vCenter, whatever name it is reached by.
        instance_uuid: Option<String> = "instanceUuid",
        license_product_name: Option<String> = "licenseProductName",
        license_product_version: Option<String> = "licenseProductVersion",
    }
    /// A session.
    UserSession = "UserSession" {
        key: String = "key",
        user_name: String = "userName",
        full_name: String = "fullName",
        login_time: Timestamp = "loginTime",
        last_active_time: Timestamp = "lastActiveTime",
        locale: String = "locale",
        message_locale: String = "messageLocale",
        is_extension_session: Option<bool> = "extensionSession",
        ip_address: Option<String> = "ipAddress",
        user_agent: Option<String> = "userAgent",
        call_count: Option<i64> = "callCount",
    }
    /// A task as it stands.
    TaskInfo = "TaskInfo" {
        key: String = "key",
        task: ManagedObjectReference = "task",
        description: Option<LocalizableMessage> = "description",
        name: Option<String> = "name",
        /// What it does: `VirtualMachine.clone`.
        description_id: String = "descriptionId",
        entity: Option<ManagedObjectReference> = "entity",
        entity_name: Option<String> = "entityName",
        locked: Vec<ManagedObjectReference> = "locked",
        state: TaskInfoState = "state",
        is_cancelled: bool = "cancelled",
        is_cancelable: bool = "cancelable",
        error: Option<LocalizedMethodFault> = "error",
        /// For a clone: the new virtual machine.
        result: Option<AnyValue> = "result",
        /// Per cent.
        progress: Option<i32> = "progress",
        reason: AnyValue = "reason",
        queue_time: Timestamp = "queueTime",
        start_time: Option<Timestamp> = "startTime",
        complete_time: Option<Timestamp> = "completeTime",
        event_chain_id: i32 = "eventChainId",
        change_tag: Option<String> = "changeTag",
        parent_task_key: Option<String> = "parentTaskKey",
        root_task_key: Option<String> = "rootTaskKey",
        activation_id: Option<String> = "activationId",
    }
    /// The reason of tasks that a user started.
    TaskReasonUser = "TaskReasonUser" {
        user_name: String = "userName",
    }
}

enumeration! {
    /// Where a task stands.
    TaskInfoState = "TaskInfoState" { Queued = "queued", Running = "running", Success = "success", Error = "error" }
}
